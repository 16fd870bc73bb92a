// One stage of a cascade, and its transpose, on vectors of neighbouring columns or of separate lines.
//
// Every number is a chain of fused multiply-adds over the taps in ascending order, from zero: its bits
// depend on nothing but taps and samples. A stage of the transpose adds two chains, one a child.
#pragma once

#include "plan.h"
#include "vector.h"

namespace {

/// Rows of numbers: at equal steps, or wherever a table says (in numbers from the base).
template <typename T>
struct Rows {
    const T *base;
    ptrdiff_t step;
    const int32_t *table;

    Rows<T> from(int position) const {
        return table ? Rows<T>{base, step, table + position}
                     : Rows<T>{base + position * step, step, nullptr};
    }
};

template <typename T>
struct To {
    T *base;
    ptrdiff_t step;
};

/// Filters of a node: taps of the low-pass and of the high-pass child alternate.
template <typename T>
struct Filters {
    const T *taps;
    int count, hop, dilation;
};

template <bool Table, typename T>
inline const T *row(const Rows<T> &in, int position) {
    return Table ? in.base + in.table[position] : in.base + position * in.step;
}

// Outputs first, ..., first + N - 1 of both children, C vectors each.
template <typename T, int C, int N, bool Table>
inline void pair_at(const Rows<T> in, const Filters<T> f, int first, const To<T> low,
                    const To<T> high) {
    Vec<T> lows[N][C] = {}, highs[N][C] = {};
    for (int tap = 0; tap < f.count; ++tap) {
        const Vec<T> w_low = splat(f.taps[2 * tap]), w_high = splat(f.taps[2 * tap + 1]);
#pragma GCC unroll 8
        for (int n = 0; n < N; ++n) {
            const T *from = row<Table>(in, f.hop * (first + n) + f.dilation * tap);
#pragma GCC unroll 8
            for (int c = 0; c < C; ++c) {
                const Vec<T> d = held<T>(load(from + c * kLanes<T>));
                lows[n][c] += w_low * d;
                highs[n][c] += w_high * d;
            }
        }
    }
#pragma GCC unroll 8
    for (int n = 0; n < N; ++n) {
#pragma GCC unroll 8
        for (int c = 0; c < C; ++c) {
            store(low.base + (first + n) * low.step + c * kLanes<T>, lows[n][c]);
            store(high.base + (first + n) * high.step + c * kLanes<T>, highs[n][c]);
        }
    }
}

template <typename T, int C, bool Table>
inline void pairs_at(const Rows<T> in, const Filters<T> f, int count, const To<T> low,
                     const To<T> high) {
    constexpr int N = C == 1 ? 4 : C == 2 ? 2 : 1;  // sums enough to hide their latency
    int n = 0;
    for (; n + N <= count; n += N) pair_at<T, C, N, Table>(in, f, n, low, high);
    for (; n < count; ++n) pair_at<T, C, 1, Table>(in, f, n, low, high);
}

/// Both children of a node, from the samples of the node: `count` positions, C vectors each.
template <typename T, int C>
inline void children_of(const Rows<T> in, const Filters<T> f, int count, const To<T> low,
                        const To<T> high) {
    if (in.table)
        pairs_at<T, C, true>(in, f, count, low, high);
    else
        pairs_at<T, C, false>(in, f, count, low, high);
}

// Positions 2 k and 2 k + 1, from cells k - last, ..., k - first; numbers there already are added.
template <typename T, int C>
inline void spread_at(const Rows<T> low, const Rows<T> high, const Filters<T> f, int k, int first,
                      int last, const To<T> out, bool add) {
    Vec<T> lows[2][C] = {}, highs[2][C] = {};
    T *const to = out.base + 2 * k * out.step;
    if (add)
        for (int odd = 0; odd < 2; ++odd)
            for (int c = 0; c < C; ++c) lows[odd][c] = load(to + odd * out.step + c * kLanes<T>);
    for (int t = first; t <= last; ++t) {
        const T *const w = f.taps + 4 * t;
        const T *const from_low = low.base + (k - t) * low.step;
        const T *const from_high = high.base + (k - t) * high.step;
#pragma GCC unroll 8
        for (int c = 0; c < C; ++c) {
            const Vec<T> a = held<T>(load(from_low + c * kLanes<T>));
            const Vec<T> b = held<T>(load(from_high + c * kLanes<T>));
            lows[0][c] += splat(w[0]) * a;
            lows[1][c] += splat(w[2]) * a;
            highs[0][c] += splat(w[1]) * b;
            highs[1][c] += splat(w[3]) * b;
        }
    }
    for (int odd = 0; odd < 2; ++odd)
        for (int c = 0; c < C; ++c)
            store(to + odd * out.step + c * kLanes<T>, lows[odd][c] + highs[odd][c]);
}

// Position q, from the cells that see it without decimation.
template <typename T, int C>
inline void spread_dilated_at(const Rows<T> low, const Rows<T> high, const Filters<T> f, int q,
                              int first, int last, const To<T> out, bool add) {
    Vec<T> lows[C] = {}, highs[C] = {};
    T *const to = out.base + q * out.step;
    if (add)
        for (int c = 0; c < C; ++c) lows[c] = load(to + c * kLanes<T>);
    for (int tap = first; tap <= last; ++tap) {
        const Vec<T> w_low = splat(f.taps[2 * tap]), w_high = splat(f.taps[2 * tap + 1]);
        const int cell = q - f.dilation * tap;
        for (int c = 0; c < C; ++c) {
            lows[c] += w_low * load(low.base + cell * low.step + c * kLanes<T>);
            highs[c] += w_high * load(high.base + cell * high.step + c * kLanes<T>);
        }
    }
    for (int c = 0; c < C; ++c) store(to + c * kLanes<T>, lows[c] + highs[c]);
}

/// The transpose of children_of: a node, from `count` positions of its children.
template <typename T, int C>
inline void node_of(const Rows<T> low, const Rows<T> high, const Filters<T> f, int count,
                    const To<T> out, bool add) {
    if (f.hop == 2) {
        const int taps = f.count / 2;
        for (int k = 0; k < count - 1 + taps; ++k)
            spread_at<T, C>(low, high, f, k, maximum(0, k - count + 1), minimum(taps - 1, k), out, add);
    } else {
        for (int q = 0; q < count + f.dilation * (f.count - 1); ++q)
            spread_dilated_at<T, C>(low, high, f, q, maximum(0, ceiling(q - count + 1, f.dilation)),
                                    minimum(f.count - 1, q / f.dilation), out, add);
    }
}

/// Cells that the children of the first stage lie apart: their filters start at other samples.
struct Delays {
    int base, low, high, more;
};

inline Delays delays_of(const Plan &plan, const Cascade &cascade, int stage, int tree) {
    if (stage) return {0, 0, 0, 0};
    const int low = plan.shift[tree][0], high = plan.shift[tree][1], base = minimum(low, high);
    const int hop = cascade.hop[0];
    return {base, (low - base) / hop, (high - base) / hop, (maximum(low, high) - base) / hop};
}

/// Rows before and after the positions of the first stage, for what the delays make more.
constexpr int kSlack = 2;

/// Children of node k of a stage in a tree; these have room for kSlack rows more at both ends.
template <typename T, int C>
inline void stage_forward(const Plan &plan, const Cascade &c, int s, int tree, int k,
                          const Rows<T> in, const To<T> low, const To<T> high) {
    const Delays d = delays_of(plan, c, s, tree);
    const T *taps = static_cast<const T *>(plan.taps) + c.filters[s];
    const Filters<T> f{taps + (((tree << s) + k) * c.taps[s]) * 2, c.taps[s], c.hop[s], c.dilation[s]};
    const int count = s ? c.positions[s + 1] : c.distinct;
    children_of<T, C>(in.from(d.base), f, count + d.more,
                      {low.base - d.low * low.step, low.step},
                      {high.base - d.high * high.step, high.step});
}

/// The transpose; rows beyond the positions of the first stage must be zero.
template <typename T, int C>
inline void stage_adjoint(const Plan &plan, const Cascade &c, int s, int tree, int k,
                          const Rows<T> low, const Rows<T> high, const To<T> out, bool add) {
    const Delays d = delays_of(plan, c, s, tree);
    const T *taps = static_cast<const T *>(plan.taps) + c.filters[s];
    const Filters<T> f{taps + (((tree << s) + k) * c.taps[s]) * 2, c.taps[s], c.hop[s], c.dilation[s]};
    node_of<T, C>(low.from(-d.low), high.from(-d.high), f, c.positions[s + 1] + d.more,
                  {out.base + d.base * out.step, out.step}, add);
}

}  // namespace
