// Vectors of one instruction set, through the vector extensions of GCC and Clang.
//
// DTWPT_BYTES is the width of a vector; compile with the flags of the instruction set. Everything is
// in an anonymous namespace: each object has copies of its own, or the linker could keep a copy made
// for a machine that has more instructions.
#pragma once

#include <stddef.h>
#include <stdint.h>

#include <utility>

namespace {

template <typename T>
struct Vectors;
template <>
struct Vectors<float> {
    typedef float V __attribute__((vector_size(DTWPT_BYTES)));
    typedef float Unaligned __attribute__((vector_size(DTWPT_BYTES), aligned(4), may_alias));
};
template <>
struct Vectors<double> {
    typedef double V __attribute__((vector_size(DTWPT_BYTES)));
    typedef double Unaligned __attribute__((vector_size(DTWPT_BYTES), aligned(8), may_alias));
};

template <typename T>
using Vec = typename Vectors<T>::V;

/// Numbers in a vector.
template <typename T>
constexpr int kLanes = DTWPT_BYTES / static_cast<int>(sizeof(T));

template <typename T>
inline Vec<T> load(const T *from) {
    return *reinterpret_cast<const typename Vectors<T>::Unaligned *>(from);
}

template <typename T>
inline void store(T *to, Vec<T> v) {
    *reinterpret_cast<typename Vectors<T>::Unaligned *>(to) = v;
}

template <typename T>
inline Vec<T> splat(T value) {
    return value - Vec<T>{};  // minus zero keeps the sign of a zero
}

/// The value in a register, behind which the compiler cannot see: it neither loads it again for each
/// use nor fuses the product that it is with a sum.
template <typename T>
inline Vec<T> held(Vec<T> v) {
#if defined(__x86_64__)
    __asm__("" : "+v"(v));
#else
    __asm__("" : "+w"(v));
#endif
    return v;
}

/// The larger of both; b if either is NaN.
template <typename T>
inline Vec<T> larger(Vec<T> a, Vec<T> b) {
    return a > b ? a : b;
}

/// The larger of both as np.maximum defines it: NaN if either is.
template <typename T>
inline Vec<T> maximum(Vec<T> a, Vec<T> b) {
    return a != a ? a : larger<T>(a, b);
}

/// The larger of both; `Careful`: where one may be NaN.
template <typename T, bool Careful>
inline Vec<T> most_of(Vec<T> a, Vec<T> b) {
    return Careful ? maximum<T>(a, b) : larger<T>(a, b);
}

inline float root(float x) { return __builtin_sqrtf(x); }
inline double root(double x) { return __builtin_sqrt(x); }

template <typename T>
inline Vec<T> root(Vec<T> v) {
    Vec<T> r;
    for (int lane = 0; lane < kLanes<T>; ++lane) r[lane] = root(v[lane]);
    return r;
}

// Transposition ------------------------------------------------------------------------------------

// In lanes of 128 bits of E numbers: interleave the first (last) numbers, `Run` at a time, of a and b.
template <int Lanes, int E, int Run, int Half>
struct Interleave {
    static constexpr int at(int k) {
        const int lane = k / E * E, within = k % E, group = within / Run;
        return (group & 1 ? Lanes : 0) + lane + Half * E / 2 + group / 2 * Run + within % Run;
    }
};

// Exchange blocks of `Size` numbers between rows `Size` apart.
template <int Lanes, int Size, int Half>
struct Exchange {
    static constexpr int at(int k) {
        return Half ? (k & Size ? Lanes + k : k + Size) : (k & Size ? Lanes + k - Size : k);
    }
};

template <typename Index, typename V, size_t... K>
inline V pick(V a, V b, std::index_sequence<K...>) {
    return __builtin_shufflevector(a, b, Index::at(static_cast<int>(K))...);
}

template <typename T, typename First, typename Second, int Distance>
__attribute__((always_inline)) inline void exchange(Vec<T> *rows) {
    constexpr int n = kLanes<T>;
#pragma GCC unroll 16
    for (int i = 0; i < n; ++i) {
        if (i & Distance) continue;
        const Vec<T> a = rows[i], b = rows[i + Distance];
        rows[i] = pick<First>(a, b, std::make_index_sequence<n>());
        rows[i + Distance] = pick<Second>(a, b, std::make_index_sequence<n>());
    }
}

/// Transpose a square of vectors.
template <typename T>
__attribute__((always_inline)) inline void transpose(Vec<T> *rows) {
    constexpr int n = kLanes<T>, E = 16 / static_cast<int>(sizeof(T));
    exchange<T, Interleave<n, E, 1, 0>, Interleave<n, E, 1, 1>, 1>(rows);
    if constexpr (E == 4) {
        exchange<T, Interleave<n, E, 2, 0>, Interleave<n, E, 2, 1>, 2>(rows);
        // Columns 1 and 2 come out in each other's place.
#pragma GCC unroll 16
        for (int i = 0; i < n; i += 4) {
            const Vec<T> second = rows[i + 1];
            rows[i + 1] = rows[i + 2];
            rows[i + 2] = second;
        }
    }
    if constexpr (n >= 2 * E) exchange<T, Exchange<n, E, 0>, Exchange<n, E, 1>, E>(rows);
    if constexpr (n >= 4 * E) exchange<T, Exchange<n, 2 * E, 0>, Exchange<n, 2 * E, 1>, 2 * E>(rows);
}

template <int Lanes, int Half>
struct Alternate {
    static constexpr int at(int k) { return (k & 1 ? Lanes : 0) + Half * Lanes / 2 + k / 2; }
};

/// Store a and b alternately: 2 * kLanes numbers.
template <typename T>
inline void store_alternately(T *to, Vec<T> a, Vec<T> b) {
    constexpr int n = kLanes<T>;
    store<T>(to, pick<Alternate<n, 0>>(a, b, std::make_index_sequence<n>()));
    store<T>(to + n, pick<Alternate<n, 1>>(a, b, std::make_index_sequence<n>()));
}

/// Store the first `count` numbers, fewer than kLanes.
template <typename T>
inline void store_some(T *to, Vec<T> v, int count) {
    T all[kLanes<T>];
    store<T>(all, v);
    const T *from = all;
#pragma GCC unroll 4
    for (int run = kLanes<T> / 2; run > 0; run /= 2) {
        if (!(count & run)) continue;
        for (int k = 0; k < run; ++k) to[k] = from[k];
        to += run;
        from += run;
    }
}

template <typename T>
inline Vec<T> load_some(const T *from, int count) {
    T all[kLanes<T>] = {};
    T *to = all;
#pragma GCC unroll 4
    for (int run = kLanes<T> / 2; run > 0; run /= 2) {
        if (!(count & run)) continue;
        for (int k = 0; k < run; ++k) to[k] = from[k];
        to += run;
        from += run;
    }
    return load<T>(all);
}

/// The first `count` numbers, at most kLanes.
template <typename T>
inline Vec<T> load_up_to(const T *from, int count) {
    return count == kLanes<T> ? load(from) : load_some(from, count);
}

template <typename T>
inline void store_up_to(T *to, Vec<T> v, int count) {
    if (count == kLanes<T>)
        store(to, v);
    else
        store_some(to, v, count);
}

}  // namespace
