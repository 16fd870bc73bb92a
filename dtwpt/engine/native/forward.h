// Analysis of a block: the vertical cascade on strips of columns, a transposition, the horizontal
// cascade on groups of lines, the requested function of the coefficients, a transposition back.
#pragma once

#include "cascade.h"

namespace {

// Samples ------------------------------------------------------------------------------------------

/// The samples behind a range of an extended axis: a run of them, or a copy of each.
struct Window {
    const int32_t *index;  ///< of the positions
    int positions;
    int low, size;  ///< the run; with low < 0 copies, one a position

    /// Sample number i of the window; -1 is a zero.
    int source(int i) const { return low < 0 ? index[i] : low + i; }
    /// Where position p is found in the window; `size` is a zero.
    int place(int p) const {
        if (low < 0) return p;
        return index[p] < 0 ? size : index[p] - low;
    }
};

inline Window window_of(const Side &side, int first, int positions) {
    Window w{side.index + first, positions, 0, 0};
    int low = side.n, high = -1;
    for (int p = 0; p < positions; ++p) {
        if (w.index[p] < 0) continue;
        low = minimum(low, w.index[p]);
        high = maximum(high, w.index[p]);
    }
    if (high < 0) return w;
    w.low = high - low < positions ? low : -1;
    w.size = high - low < positions ? high - low + 1 : positions;
    return w;
}

/// An upper bound of a window's size.
inline int window_size(const Side &side, int positions) { return minimum(side.n, positions); }

// Columns from `first` on of the window's rows, and a row of zeros.
template <typename T>
inline void copy_strip(const T *image, int columns, const Window &rows, const Window &cut, int first,
                       int count, T *to, int width) {
    constexpr int kAhead = 8;  // rows; strips are too narrow for the machine to see where they go on
    for (int i = 0; i <= rows.size; ++i, to += width) {
        const int y = i < rows.size ? rows.source(i) : -1;
        const int next = i + kAhead < rows.size ? rows.source(i + kAhead) : -1;
        if (next >= 0 && cut.low >= 0) {
            const T *const line = image + static_cast<ptrdiff_t>(next) * columns + cut.low + first;
            for (int k = 0; k < count; k += 64 / static_cast<int>(sizeof(T)))
                __builtin_prefetch(line + k, 0);
        }
        int filled = 0;
        if (y >= 0) {
            const T *line = image + static_cast<ptrdiff_t>(y) * columns;
            if (cut.low < 0) {
                for (; filled < count; ++filled) {
                    const int x = cut.source(first + filled);
                    to[filled] = x < 0 ? T(0) : line[x];
                }
            } else {
                __builtin_memcpy(to, line + cut.low + first, static_cast<size_t>(count) * sizeof(T));
                filled = count;
            }
        }
        for (; filled < width; ++filled) to[filled] = T(0);
    }
}

// Vertical -----------------------------------------------------------------------------------------

/// Most vectors in a strip of columns.
constexpr int kStrip = 4;

/// Output of the vertical filters: lines of (tree, packet, row), columns of a window.
template <typename T>
struct Vertical {
    T *base;
    int step, rows;

    T *line(const Plan &plan, int tree, int packet, int row) const {
        return base + static_cast<ptrdiff_t>(((tree << plan.depth) + packet) * rows + row) * step;
    }
};

/// Numbers from line to line: whole vectors, not a power of two.
template <typename T>
inline int vertical_step(int columns) {
    const int step = ceiling(columns, kLanes<T>) * kLanes<T>;
    return step + (step % 128 ? 0 : kLanes<T>);
}

template <typename T>
struct Strip {
    const Plan &plan;
    const Cascade &cascade;
    Vertical<T> v;
    int column;  ///< of v
    T *level[kMaxDepth];
    const int32_t *repeated;

    // Room for the nodes below each stage but the last, of the widest strips.
    static int32_t *room(Arena &arena, const Cascade &cascade, T **level) {
        for (int s = 0; s + 1 < cascade.depth; ++s) {
            const int rows = 2 * (cascade.positions[s + 1] + 2 * kSlack);
            level[s] = arena.take<T>(static_cast<size_t>(rows) * kStrip * kLanes<T>);
        }
        return arena.take<int32_t>(static_cast<size_t>(cascade.positions[1]));
    }

    template <int C>
    void node(int s, int tree, int k, const Rows<T> in) const {
        constexpr int width = C * kLanes<T>;
        if (s == plan.depth - 1) {
            const int32_t *packet = plan.packet + 2 * k;
            stage_forward<T, C>(plan, cascade, s, tree, k, in,
                                {v.line(plan, tree, packet[0], 0) + column, v.step},
                                {v.line(plan, tree, packet[1], 0) + column, v.step});
            return;
        }
        const int rows = cascade.positions[s + 1] + 2 * kSlack;
        T *const low = level[s] + kSlack * width, *const high = low + rows * width;
        stage_forward<T, C>(plan, cascade, s, tree, k, in, {low, width}, {high, width});
        const uint8_t *needed = plan.rows + (2 << s) + 2 * k;
        const int32_t *const table = s ? nullptr : repeated;
        if (needed[0]) node<C>(s + 1, tree, 2 * k, {low, width, table});
        if (needed[1]) node<C>(s + 1, tree, 2 * k + 1, {high, width, table});
    }
};

/// The vertical cascade on `count` columns of a window, from `column` on.
template <typename T>
inline void filter_strip(const Plan &plan, const Cascade &cascade, const T *image, int columns,
                         const Window &rows, const Window &cut, const Vertical<T> &v, int column,
                         int count, Arena arena) {
    const int vectors = ceiling(count, kLanes<T>), width = vectors * kLanes<T>;
    Strip<T> strip{plan, cascade, v, column, {}, nullptr};
    strip.repeated = repeat(cascade, width, Strip<T>::room(arena, cascade, strip.level));
    T *const samples = arena.take<T>(static_cast<size_t>(rows.size + 1) * kStrip * kLanes<T>);
    int32_t *const table = arena.take<int32_t>(static_cast<size_t>(rows.positions));
    for (int p = 0; p < rows.positions; ++p) table[p] = rows.place(p) * width;
    copy_strip(image, columns, rows, cut, column, count, samples, width);
    const Rows<T> in{samples, width, table};
    for (int tree = 0; tree < 2; ++tree) {
        if (vectors == 1)
            strip.template node<1>(0, tree, 0, in);
        else if (vectors == 2)
            strip.template node<2>(0, tree, 0, in);
        else if (vectors == 3)
            strip.template node<3>(0, tree, 0, in);
        else
            strip.template node<4>(0, tree, 0, in);
    }
}

template <typename T>
inline size_t strip_scratch(const Cascade &cascade, int window) {
    Arena arena(nullptr);
    T *level[kMaxDepth];
    Strip<T>::room(arena, cascade, level);
    arena.take<T>(static_cast<size_t>(window + 1) * kStrip * kLanes<T>);
    arena.take<int32_t>(static_cast<size_t>(cascade.positions[0]));
    return arena.used();
}

// Modulus ------------------------------------------------------------------------------------------

/// Sums of squares between low and high are as good as exact; others are taken of scaled numbers.
template <typename T>
struct Safe;
template <>
struct Safe<float> {
    static constexpr float low = 0x1p-96f, high = 0x1p126f, up = 0x1p100f, down = 0x1p-64f;
};
template <>
struct Safe<double> {
    static constexpr double low = 0x1p-800, high = 0x1p1000, up = 0x1p600, down = 0x1p-600;
};

template <typename T>
inline Vec<T> square(Vec<T> re, Vec<T> im) {
    return held<T>(re * re) + held<T>(im * im);
}

/// The modulus of any numbers, with the bits of root(square(re, im)) where that is safe.
template <typename T>
inline Vec<T> modulus_of(Vec<T> re, Vec<T> im) {
    typedef Safe<T> S;
    const Vec<T> sum = square<T>(re, im), one = splat(T(1)), infinity = splat(T(__builtin_inf()));
    const auto small = sum < splat(S::low), safe = (sum >= splat(S::low)) & (sum <= splat(S::high));
    const Vec<T> scale = safe ? one : small ? splat(S::up) : splat(S::down);
    const Vec<T> back = safe ? one : small ? splat(1 / S::up) : splat(1 / S::down);
    const Vec<T> a = held<T>(re * scale), b = held<T>(im * scale);
    const Vec<T> result = root<T>(square<T>(a, b)) * back;
    const auto infinite = (re == infinity) | (re == -infinity) | (im == infinity) | (im == -infinity);
    return infinite ? infinity : result;
}

/// g * c / |c| where that is safe; elsewhere `Careful` is needed: zero where c is.
template <typename T, bool Careful>
inline void direct(Vec<T> &re, Vec<T> &im, Vec<T> g) {
    typedef Safe<T> S;
    Vec<T> sum = square<T>(re, im);
    if constexpr (Careful) {
        const auto small = sum < splat(S::low), safe = (sum >= splat(S::low)) & (sum <= splat(S::high));
        const Vec<T> one = splat(T(1)), scale = safe ? one : small ? splat(S::up) : splat(S::down);
        re = held<T>(re * scale), im = held<T>(im * scale);
        sum = square<T>(re, im);
    }
    // One division for both; a part over the modulus is at most 1.
    const Vec<T> over = held<T>(splat(T(1)) / root<T>(sum));
    re = held<T>(held<T>(re * over) * g);
    im = held<T>(held<T>(im * over) * g);
    if constexpr (Careful) {
        const auto zero = sum == splat(T(0));
        re = zero ? Vec<T>{} : re;
        im = zero ? Vec<T>{} : im;
    }
}

/// Whether sums of squares are beyond what is safe.
template <typename T>
inline auto unsafe(Vec<T> sum) {
    return ~((sum >= splat(Safe<T>::low)) & (sum <= splat(Safe<T>::high)));
}

template <typename M>
inline bool any(const M &mask) {
    uint64_t words[sizeof(M) / 8], all = 0;
    __builtin_memcpy(words, &mask, sizeof(M));
    for (uint64_t word : words) all |= word;
    return all != 0;
}

// Horizontal ---------------------------------------------------------------------------------------

/// Output of the last stage for a coefficient.
enum Leaf { kBoth, kRoot, kFirst };

/// Lines of a group: a lane each.
template <typename T>
struct Lines {
    int count;
    int packet[kLanes<T>], row[kLanes<T>];
    int valid[kLanes<T>];  ///< outputs of the line that are stored
    T *out[kLanes<T>];
};

/// The horizontal cascade, in both trees at once. `Dims` and `What` say how coefficients come about.
template <typename T, int Dims, Leaf What>
struct Group {
    /// Vectors a position of a tree: both vertical trees, but real parts need only those of the same.
    static constexpr int kVectors = Dims == 2 && What != kFirst ? 2 : 1;
    static constexpr int kWidth = kVectors * kLanes<T>;
    static constexpr int kParts = What == kBoth ? 2 : 1;
    /// Leaves are (child, sign, part).
    static constexpr int kLeaves = 2 * Dims * kParts;

    const Plan &plan;
    const Cascade &cascade;
    T *level[kMaxDepth];
    T *leaves;
    const int32_t *repeated;
    bool pooled = false;  ///< leaves are maxima of three cells, two apart

    size_t leaf_size() const { return static_cast<size_t>(cascade.positions[plan.depth]) * kLanes<T>; }
    T *leaf(int child, int sign, int part) const {
        return leaves + static_cast<size_t>((child * Dims + sign) * kParts + part) * leaf_size();
    }

    void room(Arena &arena) {
        for (int s = 0; s + 1 < cascade.depth; ++s)
            level[s] = arena.take<T>(static_cast<size_t>(4 * node_size(s)));
        leaves = arena.take<T>(kLeaves * leaf_size());
        int32_t *const table = arena.take<int32_t>(static_cast<size_t>(cascade.positions[1]));
        repeated = repeat(cascade, kWidth, table);
    }

    /// Samples of a child of a node at stage s, for the next stage.
    Rows<T> below(int s, int tree, int which) const {
        return {child(s, tree, which), kWidth, s ? nullptr : repeated};
    }

    ptrdiff_t node_size(int s) const {
        return static_cast<ptrdiff_t>(cascade.positions[s + 1] + 2 * kSlack) * kWidth;
    }
    /// A child of the node at stage s whose turn it is.
    T *child(int s, int tree, int which) const {
        return level[s] + (2 * tree + which) * node_size(s) + kSlack * kWidth;
    }

    void children(int s, int k, const Rows<T> *in) const {
        for (int tree = 0; tree < 2; ++tree)
            stage_forward<T, kVectors>(plan, cascade, s, tree, k, in[tree],
                                       {child(s, tree, 0), kWidth}, {child(s, tree, 1), kWidth});
    }

    /// Coefficients of both children of a node of the last stage. Return whether a real part that
    /// is to be compared is NaN.
    bool last(int k, const Rows<T> *in) const {
        return in[0].table ? last_of<true>(k, in) : last_of<false>(k, in);
    }

    template <bool Table>
    bool last_of(int k, const Rows<T> *in) const {
        if constexpr (What == kFirst)
            if (pooled) return cells<Table, false, true>(k, in) && (cells<Table, true, true>(k, in), true);
        const bool bad = cells<Table, false, false>(k, in);
        if (What == kRoot && bad) cells<Table, true, false>(k, in);
        return bad;
    }

    // Return whether a modulus or the maximum of real parts needs care.
    template <bool Table, bool Careful, bool Pool>
    bool cells(int k, const Rows<T> *in) const {
        // As many sums as there are registers for: each tap is then loaded for more of them.
        constexpr int N = (DTWPT_BYTES == 64 ? 4 : 2) / kVectors;
        const int count = cascade.positions[plan.depth];
        auto bad = Vec<T>{} != Vec<T>{};
        Vec<T> most[4];
        int n = 0;
        for (; n + N <= count; n += N) bad |= cells_at<Table, Careful, Pool, N>(k, in, n, most);
        for (; n < count; ++n) bad |= cells_at<Table, Careful, Pool, 1>(k, in, n, most);
        return !Careful && any(bad);
    }

    // `most` are maxima, of each child and sign, that the next cell may raise.
    template <bool Table, bool Careful, bool Pool, int N>
    __attribute__((always_inline)) inline auto cells_at(int k, const Rows<T> *in, int first,
                                                        Vec<T> *most) const {
        const int s = plan.depth - 1, taps = cascade.taps[s], dilation = cascade.dilation[s];
        const int hop = cascade.hop[s];
        const T *const filters = static_cast<const T *>(plan.taps) + cascade.filters[s];
        const T *const w1 = filters + static_cast<ptrdiff_t>(k * taps) * 2;
        const T *const w2 = w1 + (static_cast<ptrdiff_t>(taps) << s) * 2;
        Vec<T> tree1[N][2][kVectors] = {}, tree2[N][2][kVectors] = {};
        for (int tap = 0; tap < taps; ++tap) {
            const T *const w = w1 + 2 * tap, *const u = w2 + 2 * tap;
            Vec<T> w_low = splat(w[0]), w_high = splat(w[1]), u_low = splat(u[0]), u_high = splat(u[1]);
            if constexpr (DTWPT_BYTES == 64) {
                w_low = held<T>(w_low), w_high = held<T>(w_high);
                u_low = held<T>(u_low), u_high = held<T>(u_high);
            }
#pragma GCC unroll 4
            for (int n = 0; n < N; ++n) {
                const int position = hop * (first + n) + dilation * tap;
                const T *const a = row<Table>(in[0], position), *const b = row<Table>(in[1], position);
#pragma GCC unroll 2
                for (int v = 0; v < kVectors; ++v) {
                    const Vec<T> d = held<T>(load(a + v * kLanes<T>));
                    const Vec<T> e = held<T>(load(b + v * kLanes<T>));
                    tree1[n][0][v] += w_low * d;
                    tree1[n][1][v] += w_high * d;
                    tree2[n][0][v] += u_low * e;
                    tree2[n][1][v] += u_high * e;
                }
            }
        }
        auto bad = Vec<T>{} != Vec<T>{};
        const ptrdiff_t size = cascade.positions[plan.depth] * kLanes<T>;
        T *const base = leaves + first * kLanes<T>;
        const auto put = [&](int n, int child, int sign, Vec<T> re, Vec<T> im) {
            T *const to = base + n * kLanes<T> + (child * Dims + sign) * kParts * size;
            if constexpr (What == kBoth) {
                store(to, re);
                store(to + size, im);
            } else if constexpr (Pool) {
                const int cell = first + n;
                Vec<T> &so_far = most[2 * child + sign];
                const Vec<T> raised = cell ? most_of<T, Careful>(so_far, re) : re;
                if (cell && (N == 1 ? cell : n) % 2 == 0)
                    store(to - (cell / 2 + 1) * kLanes<T>, raised);  // of output cell / 2 - 1
                so_far = (N == 1 ? cell : n) % 2 ? raised : re;
                bad |= re != re;
            } else if constexpr (What == kFirst) {
                store(to, re);
                bad |= re != re;
            } else if constexpr (Careful) {
                store(to, modulus_of<T>(re, im));
            } else {
                const Vec<T> sum = square<T>(re, im);
                bad |= unsafe<T>(sum);
                store(to, root<T>(sum));
            }
        };
#pragma GCC unroll 4
        for (int n = 0; n < N; ++n) {
#pragma GCC unroll 2
            for (int c = 0; c < 2; ++c) {
                const Vec<T> *const t1 = tree1[n][c], *const t2 = tree2[n][c];
                if constexpr (Dims == 1) {
                    put(n, c, 0, t1[0], t2[0]);
                } else if constexpr (What == kFirst) {
                    put(n, c, 0, t1[0] - t2[0], Vec<T>{});
                    put(n, c, 1, t1[0] + t2[0], Vec<T>{});
                } else {
                    put(n, c, 0, t1[0] - t2[1], t2[0] + t1[1]);
                    put(n, c, 1, t1[0] + t2[1], t1[1] - t2[0]);
                }
            }
        }
        return bad;
    }
};

/// Whether maxima along lines are taken as soon as cells are computed: for the pooling of networks.
inline bool pools_cells(const Job &job) { return job.kind == kRMax && job.plan->pool == 3; }

/// Stores the output of a group of lines.
template <typename T, int Dims, Leaf What>
struct Writer {
    const Job &job;
    Group<T, Dims, What> group;
    const Lines<T> &lines;
    int outputs;  ///< columns of the block
    int row_count;
    int64_t channel, row_step, part;
    T *turned;  ///< room for a map's rows in the lanes
    const int32_t *places;  ///< of the rows' sums, as in Job; null for maps

    static size_t room(int outputs, int numbers) {
        return static_cast<size_t>((outputs + 2) * numbers * kLanes<T>);
    }

    void node(int s, int k, const Rows<T> *in) const {
        const Plan &plan = *job.plan;
        const uint8_t *needed = plan.columns + (2 << s) + 2 * k;
        if (s == plan.depth - 1) {
            for (int c = 0; c < 2; ++c)
                for (int sign = 0; sign < Dims; ++sign)
                    if (needed[c]) prefetch(sign, plan.packet[2 * k + c]);
            const bool careful = group.last(k, in);
            for (int c = 0; c < 2; ++c)
                for (int sign = 0; sign < Dims; ++sign)
                    if (needed[c]) emit(c, sign, plan.packet[2 * k + c], careful);
            return;
        }
        group.children(s, k, in);
        for (int c = 0; c < 2; ++c) {
            if (!needed[c]) continue;
            const Rows<T> below[2] = {group.below(s, 0, c), group.below(s, 1, c)};
            node(s + 1, 2 * k + c, below);
        }
    }

    int channel_of(int lane, int sign, int packet) const {
        const Plan &plan = *job.plan;
        if (Dims == 1) return plan.place[packet];
        return plan.place[(((sign << plan.depth) + lines.packet[lane]) << plan.depth) + packet];
    }

    // Ask for the lines of the cache that will be written: on their way while coefficients are made.
    void prefetch(int sign, int packet) const {
        if (places) return;
        const bool pooled = Dims == 2 && job.kind == kRMax;
        for (int l = 0; l < lines.count; ++l) {
            const int to = channel_of(l, sign, packet), row = lines.row[l] / 2;
            if (to < 0 || (pooled && (lines.row[l] % 2 || row >= row_count))) continue;
            const T *const out = lines.out[l] + to * channel + (pooled ? row * row_step : 0);
            for (int i = 0; i < outputs * numbers(); i += 64 / static_cast<int>(sizeof(T)))
                __builtin_prefetch(out + i, 1);
            if (job.kind != kParts) continue;
            for (int i = 0; i < outputs; i += 64 / static_cast<int>(sizeof(T)))
                __builtin_prefetch(out + part + i, 1);
        }
    }

    void emit(int child, int sign, int packet, bool careful) const {
        T *const leaf = group.leaf(child, sign, 0);
        int64_t to[kLanes<T>];
        for (int l = 0; l < lines.count; ++l) to[l] = channel_of(l, sign, packet) * channel;
        if (What == kFirst && job.kind == kRMax) {
            careful ? pool_leaf<true>(leaf, to) : pool_leaf<false>(leaf, to);
            if (Dims == 2) return;
        } else if (What == kRoot && places) {
            for (int j = 0; j < outputs; j += kLanes<T>) {
                Vec<T> cells[kLanes<T>];
                square_of(leaf, j, cells);
                add_rows(to, j, cells);
            }
            return;
        } else {
            turn_leaf(child, sign, leaf);
        }
        copy_rows(to, 0, numbers());
        if (What == kBoth && job.kind == kParts) {
            turn_leaf(child, sign, group.leaf(child, sign, 1));
            copy_rows(to, part, numbers());
        }
    }

    int numbers() const { return job.kind == kComplex ? 2 : 1; }

    void turn_leaf(int child, int sign, const T *leaf) const {
        // Maps are written by runs of their rows, turned in a small buffer. Vectors run over the ends
        // of its rows, so that the end of a row comes before the start of the next one.
        const int last = (outputs - 1) / kLanes<T> * kLanes<T>;
        for (int j = last; j >= 0; j -= kLanes<T>) {
            Vec<T> re[kLanes<T>];
            square_of(leaf, j, re);
            if (What == kBoth && job.kind == kComplex) {
                Vec<T> im[kLanes<T>];
                square_of(group.leaf(child, sign, 1), j, im);
                for (int l = 0; l < lines.count; ++l)
                    store_alternately<T>(turned + 2 * (l * outputs + j), re[l], im[l]);
            } else {
                for (int l = 0; l < lines.count; ++l) store(turned + l * outputs + j, re[l]);
            }
        }
    }

    // Rows that follow each other in a map in one piece.
    void copy_rows(const int64_t *to, int64_t offset, int numbers) const {
        const int width = outputs * numbers;
        for (int l = 0, next; l < lines.count; l = next) {
            T *const out = lines.out[l] + to[l] + offset;
            next = l + 1;
            while (row_step == width && next < lines.count && lines.packet[next] == lines.packet[l]) ++next;
            if (to[l] < 0) continue;
            const int count = row_step == width ? (next - l) * width : lines.valid[l] * numbers;
            __builtin_memcpy(out, turned + l * width, static_cast<size_t>(count) * sizeof(T));
        }
    }

    // Numbers of kLanes outputs from j on, as a row for each line.
    void square_of(const T *leaf, int j, Vec<T> *rows) const {
        for (int l = 0; l < kLanes<T>; ++l)
            rows[l] = load(leaf + minimum(j + l, outputs - 1) * kLanes<T>);
        transpose<T>(rows);
    }

    // Sums of rows of a map, in ascending order, in the places where a table wants them.
    void add_rows(const int64_t *to, int j, const Vec<T> *cells) const {
        for (int l = 0, next; l < lines.count; l = next) {
            const int place = places[lines.row[l]];
            next = l + 1;
            if (to[l] < 0) continue;
            T *const out = lines.out[l] + to[l] + (place >> 1) * row_step + j;
            Vec<T> sum = cells[l];
            if (!(place & 1)) sum = load(out) + sum;
            for (; next < lines.count && lines.packet[next] == lines.packet[l] &&
                   places[lines.row[next]] == (place & ~1);
                 ++next)
                sum += cells[next];
            store(out, sum);
        }
    }

    template <bool Careful>
    void pool_leaf(const T *leaf, const int64_t *to) const {
        const int pool = job.plan->pool, n = kLanes<T>;
        for (int j = (outputs - 1) / n * n; j >= 0; j -= n) {
            // The last vector ends where the rows do: maxima may be taken again.
            const int from = Dims == 2 && outputs >= n ? minimum(j, outputs - n) : j;
            Vec<T> rows[kLanes<T>];
            for (int l = 0; l < n; ++l) {
                const int output = minimum(from + l, outputs - 1);
                rows[l] = load(leaf + (group.pooled ? output : 2 * output) * n);
                for (int shift = 1; shift < pool && !group.pooled; ++shift)
                    rows[l] = most_of<T, Careful>(rows[l], load(leaf + (2 * output + shift) * n));
            }
            transpose<T>(rows);
            if (Dims == 2) {
                raise_rows<Careful>(to, from, rows);
            } else {
                for (int l = 0; l < lines.count; ++l) store(turned + l * outputs + j, rows[l]);
            }
        }
    }

    // Maxima over rows of cells, each put in the rows that it is pooled to. Rows come in ascending
    // order; the first and the last output of a group may go on from, or in, another.
    template <bool Careful>
    void raise_rows(const int64_t *to, int j, const Vec<T> *cells) const {
        const int pool = job.plan->pool, count = minimum(outputs - j, kLanes<T>);
        for (int begin = 0, end; begin < lines.count; begin = end) {  // lines of one packet
            end = begin + 1;
            while (end < lines.count && lines.packet[end] == lines.packet[begin]) ++end;
            if (to[begin] < 0) continue;
            const int low = lines.row[begin], high = lines.row[end - 1];
            const int last = minimum(row_count - 1, high / 2);
            for (int r = maximum(0, ceiling(low - pool + 1, 2)); r <= last; ++r) {
                const int first = maximum(2 * r, low);
                T *const out = lines.out[begin] + to[begin] + r * row_step + j;
                Vec<T> most = cells[begin + first - low];
                if (first > 2 * r)
                    most = maximum<T>(load_up_to(out, count), most);
                for (int y = first + 1; y <= minimum(2 * r + pool - 1, high); ++y)
                    most = most_of<T, Careful>(most, cells[begin + y - low]);
                store_up_to(out, most, count);
            }
        }
    }
};

// Items --------------------------------------------------------------------------------------------

/// Packets that are needed along the vertical axis, in order of frequency.
inline int needed_packets(const Plan &plan, int32_t *list) {
    int count = 0;
    const int nodes = 1 << plan.depth;
    for (int packet = 0; packet < nodes; ++packet)
        if (plan.rows[nodes + (packet ^ (packet >> 1))]) list[count++] = packet;
    return count;
}

/// Lines of both vertical trees, as rows of positions: vectors of tree 1, then of tree 2; then zeros.
template <typename T>
inline void turn_lines(const Plan &plan, const Vertical<T> &v, const Lines<T> &lines, int columns,
                       T *to) {
    constexpr int n = kLanes<T>;
    for (int tree = 0; tree < 2; ++tree) {
        const T *from[n];
        for (int l = 0; l < n; ++l) {
            const int line = minimum(l, lines.count - 1);
            from[l] = v.line(plan, tree, lines.packet[line], lines.row[line]);
        }
        for (int column = 0; column < columns; column += n) {
            Vec<T> rows[n];
            for (int l = 0; l < n; ++l) rows[l] = load(from[l] + column);
            transpose<T>(rows);
            for (int l = 0; l < n; ++l) store(to + ((column + l) * 2 + tree) * n, rows[l]);
        }
    }
}

template <typename T, Leaf What>
inline size_t block_of(const Job &job, const Cascade &vertical, const Cascade &horizontal,
                       const Window *windows, Arena &arena, Vertical<T> &v, T *&turned, T *&zeros,
                       int32_t *&table, int32_t *&packets) {
    const int columns = windows ? windows[1].size
                                : window_size(job.side[1], horizontal.positions[0]);
    const int rows = vertical.positions[vertical.depth];
    v.rows = rows;
    v.step = vertical_step<T>(maximum(columns, 1));
    v.base = arena.take<T>(static_cast<size_t>(2 * vertical.nodes) * static_cast<size_t>(rows) *
                           static_cast<size_t>(v.step));
    const int padded = ceiling(columns, kLanes<T>) * kLanes<T>;
    turned = arena.take<T>(static_cast<size_t>(padded + 1) * 2 * kLanes<T>);
    zeros = turned ? turned + padded * 2 * kLanes<T> : nullptr;
    table = arena.take<int32_t>(static_cast<size_t>(horizontal.positions[0]));
    packets = arena.take<int32_t>(static_cast<size_t>(vertical.nodes));
    return arena.used();
}

template <typename T, Leaf What>
inline void forward_block(const Job &job, int64_t image, int row, int column, T *out, int64_t channel,
                          int64_t row_step, int64_t part, void *scratch) {
    const Plan &plan = *job.plan;
    const int outputs_down = minimum(job.block_rows, job.map_rows - row);
    const int outputs = minimum(job.block_columns, job.map_columns - column);
    Cascade vertical = cascade_of(plan, cells_of(plan, outputs_down));
    Cascade horizontal = cascade_of(plan, cells_of(plan, outputs));
    const int step = plan.pool ? 2 * plan.stride : plan.stride;
    const Window windows[2] = {window_of(job.side[0], row * step, vertical.positions[0]),
                               window_of(job.side[1], column * step, horizontal.positions[0])};
    share(vertical, job.side[0], windows[0].index);
    share(horizontal, job.side[1], windows[1].index);

    Arena arena(scratch);
    Vertical<T> v;
    T *turned, *zeros;
    int32_t *table, *packets;
    block_of<T, What>(job, vertical, horizontal, windows, arena, v, turned, zeros, table, packets);
    const int source_columns = windows[1].size;

    const T *const x = static_cast<const T *>(job.x) +
                       image * static_cast<int64_t>(job.side[0].n) * job.side[1].n;
    const int vectors = ceiling(source_columns, kLanes<T>), strips = ceiling(vectors, kStrip);
    for (int strip = 0; strip < strips; ++strip) {  // of about the same width
        const int first = vectors * strip / strips * kLanes<T>;
        const int last = minimum(vectors * (strip + 1) / strips * kLanes<T>, source_columns);
        filter_strip(plan, vertical, x, job.side[1].n, windows[0], windows[1], v, first, last - first,
                     arena);
    }

    Lines<T> lines;
    Writer<T, 2, What> writer{job,          {plan, horizontal, {}, nullptr, nullptr}, lines, outputs,
                              outputs_down, channel, row_step, part, nullptr,
                              job.places ? job.places + row : nullptr};
    writer.group.room(arena);
    writer.group.pooled = pools_cells(job);
    writer.turned = arena.take<T>(writer.room(outputs, 2));
    for (int l = 0; l < 2 * kLanes<T>; ++l) zeros[l] = T(0);
    for (int p = 0; p < horizontal.positions[0]; ++p) {
        const int place = windows[1].place(p);
        table[p] = place == source_columns && windows[1].low >= 0 ? static_cast<int32_t>(zeros - turned)
                                                                  : place * 2 * kLanes<T>;
    }
    // Real parts need lines of the vertical tree alone that is as the horizontal one.
    const Rows<T> in[2] = {{turned, 0, table},
                           {turned + (What == kFirst ? kLanes<T> : 0), 0, table}};
    const int rows = vertical.positions[plan.depth];
    const int all = needed_packets(plan, packets) * rows;
    const bool apart = job.kind == kRMax || job.places;  // which row is written is found out there
    for (int first = 0; first < all; first += kLanes<T>) {
        lines.count = minimum(all - first, kLanes<T>);
        for (int l = 0; l < lines.count; ++l) {
            lines.packet[l] = packets[(first + l) / rows];
            lines.row[l] = (first + l) % rows;
            lines.valid[l] = outputs;
            lines.out[l] = out + (apart ? 0 : lines.row[l] * row_step);
        }
        turn_lines(plan, v, lines, source_columns, turned);
        writer.node(0, 0, in);
    }
}

template <typename T, Leaf What>
inline size_t forward_room(const Job &job) {
    const Plan &plan = *job.plan;
    const Cascade vertical = cascade_of(plan, cells_of(plan, job.block_rows));
    const Cascade horizontal = cascade_of(plan, cells_of(plan, job.block_columns));
    Arena arena(nullptr);
    Vertical<T> v;
    T *turned, *zeros;
    int32_t *table, *packets;
    block_of<T, What>(job, vertical, horizontal, nullptr, arena, v, turned, zeros, table, packets);
    const size_t strip =
        strip_scratch<T>(vertical, window_size(job.side[0], vertical.positions[0]));
    Arena rest(nullptr);
    Group<T, 2, What> group{plan, horizontal, {}, nullptr, nullptr};
    group.room(rest);
    rest.take<T>(Writer<T, 2, What>::room(job.block_columns, 2));
    return arena.used() + (strip > rest.used() ? strip : rest.used());
}

// Signals ------------------------------------------------------------------------------------------

/// Segments of signals, in lanes: kLanes samples a position.
template <typename T>
inline void gather_lines(const Job &job, const int64_t *signal, const int *first, int count,
                         int positions, T *to) {
    constexpr int n = kLanes<T>;
    const Side &side = job.side[1];
    const int extended = (side.count - 1) * job.plan->stride + job.plan->length;
    for (int p = 0; p < positions; p += n) {
        Vec<T> rows[n];
        for (int l = 0; l < n; ++l) {
            const int line = minimum(l, count - 1), at = first[line] + p;
            const T *const x = static_cast<const T *>(job.x) + signal[line] * side.n;
            const int32_t *const index = side.index + at;
            if (at + n <= extended && index[0] >= 0 && index[n - 1] == index[0] + n - 1) {
                rows[l] = load(x + index[0]);
                continue;
            }
            T samples[n];
            for (int k = 0; k < n; ++k)
                samples[k] = at + k < extended && index[k] >= 0 ? x[index[k]] : T(0);
            rows[l] = load(samples);
        }
        transpose<T>(rows);
        for (int l = 0; l < n; ++l) store(to + (p + l) * n, rows[l]);
    }
}

template <typename T, Leaf What>
inline void forward_segments(const Job &job, int64_t group, void *scratch) {
    const Plan &plan = *job.plan;
    const Cascade cascade = cascade_of(plan, cells_of(plan, job.block_columns));
    Arena arena(scratch);
    const int padded = ceiling(cascade.positions[0], kLanes<T>) * kLanes<T>;
    T *const samples = arena.take<T>(static_cast<size_t>(padded) * kLanes<T>);
    Lines<T> lines;
    const int numbers = job.kind == kComplex ? 2 : 1;
    const int64_t channel = static_cast<int64_t>(job.map_columns) * numbers;
    const int64_t part = plan.channels * channel;
    Writer<T, 1, What> writer{job,     {plan, cascade, {}, nullptr, nullptr}, lines, job.block_columns, 1,
                              channel, 0, part, nullptr, nullptr};
    writer.group.room(arena);
    writer.group.pooled = pools_cells(job);
    writer.turned = arena.take<T>(writer.room(job.block_columns, 2));

    const int segments = ceiling(job.map_columns, job.block_columns);
    const int step = plan.pool ? 2 * plan.stride : plan.stride;
    int64_t signal[kLanes<T>];
    int first[kLanes<T>];
    const int64_t left = job.batch * segments - group * kLanes<T>;
    lines.count = left < kLanes<T> ? static_cast<int>(left) : kLanes<T>;
    for (int l = 0; l < lines.count; ++l) {
        const int64_t segment = group * kLanes<T> + l;
        signal[l] = segment / segments;
        const int at = static_cast<int>(segment % segments) * job.block_columns;
        first[l] = at * step;
        lines.packet[l] = lines.row[l] = 0;
        lines.valid[l] = minimum(job.block_columns, job.map_columns - at);
        lines.out[l] = static_cast<T *>(job.out) + at * numbers +
                       signal[l] * part * (job.kind == kParts ? 2 : 1);
    }
    gather_lines<T>(job, signal, first, lines.count, cascade.positions[0], samples);
    const Rows<T> in[2] = {{samples, kLanes<T>, nullptr}, {samples, kLanes<T>, nullptr}};
    writer.node(0, 0, in);
}

template <typename T, Leaf What>
inline size_t segments_room(const Job &job) {
    const Cascade cascade = cascade_of(*job.plan, cells_of(*job.plan, job.block_columns));
    Arena arena(nullptr);
    arena.take<T>(static_cast<size_t>(ceiling(cascade.positions[0], kLanes<T>) * kLanes<T>) *
                  kLanes<T>);
    Group<T, 1, What> group{*job.plan, cascade, {}, nullptr, nullptr};
    group.room(arena);
    arena.take<T>(Writer<T, 1, What>::room(job.block_columns, 2));
    return arena.used();
}

}  // namespace
