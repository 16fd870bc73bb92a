// The transpose of the analysis: horizontal on groups of lines, then vertical on strips of columns.
//
// The buffer between them holds the inputs of the vertical filters, where the analysis holds their
// outputs. The gradient of the modulus goes through them both ways: no coefficients are stored.
#pragma once

#include "forward.h"

namespace {

/// A window that covers a whole axis.
inline Window whole(const Side &side) { return {nullptr, 0, 0, side.n}; }

template <typename T>
inline Vertical<T> vertical_of(const Job &job, void *v) {
    return {static_cast<T *>(v), vertical_step<T>(job.side[1].n), job.side[0].count};
}

/// Zeros for missing children: any number of rows.
template <typename T>
inline Rows<T> nothing(const T *zeros) {
    return {zeros, 0, nullptr};
}

// Horizontal ---------------------------------------------------------------------------------------

/// Coefficients of a group of lines.
template <typename T>
struct Source {
    const T *in[kLanes<T>];         ///< channel 0, cell 0
    int first[kLanes<T>], end[kLanes<T>];  ///< existing cells; the others are zero
    int64_t channel, part;
    const T *end_of_all;  ///< where there is nothing more to read
};

template <typename T, int Dims, Leaf What, bool Modulus>
struct Gradient {
    typedef Group<T, Dims, What> G;
    static constexpr int kWidth = G::kWidth;

    const Job &job;
    G group;
    const Lines<T> &lines;
    const Source<T> &source;
    T *up[kMaxDepth];
    T *zeros;

    void room(Arena &arena) {
        group.room(arena);
        for (int s = 0; s < group.cascade.depth; ++s)
            up[s] = arena.take<T>(static_cast<size_t>(4 * group.node_size(s)));
        zeros = arena.take<T>(kWidth);
    }

    T *child(int s, int tree, int which) const {
        return up[s] + (2 * tree + which) * group.node_size(s) + kSlack * kWidth;
    }

    /// Add what node k of a stage is in both trees to `out`, or set it.
    void node(int s, int k, const Rows<T> *in, const To<T> *out, bool add) const {
        const Plan &plan = group.plan;
        const uint8_t *needed = plan.columns + (2 << s) + 2 * k;
        if (s == plan.depth - 1) {
            leaves(k, in);
        } else {
            if (Modulus) group.children(s, k, in);
            for (int c = 0; c < 2; ++c) {
                if (!needed[c]) continue;
                const Rows<T> below[2] = {group.below(s, 0, c), group.below(s, 1, c)};
                const To<T> to[2] = {{child(s, 0, c), kWidth}, {child(s, 1, c), kWidth}};
                node(s + 1, 2 * k + c, below, to, false);
                if (s == 0) clear_slack(c);
            }
        }
        for (int tree = 0; tree < 2; ++tree) {
            Rows<T> below[2];
            for (int c = 0; c < 2; ++c)
                below[c] = needed[c] ? Rows<T>{child(s, tree, c), kWidth, nullptr} : nothing(zeros);
            stage_adjoint<T, G::kVectors>(plan, group.cascade, s, tree, k, below[0], below[1],
                                          out[tree], add);
        }
    }

    void clear_slack(int which) const {
        const int rows = group.cascade.positions[1];
        for (int tree = 0; tree < 2; ++tree) {
            T *const to = child(0, tree, which);
            for (int i = 0; i < kSlack * kWidth; ++i)
                to[i - kSlack * kWidth] = to[rows * kWidth + i] = T(0);
        }
    }

    // Set the outputs of both trees behind the children of a node of the last stage.
    void leaves(int k, const Rows<T> *in) const {
        const Plan &plan = group.plan;
        if constexpr (Modulus) {
            for (int c = 0; c < 2; ++c)
                for (int sign = 0; sign < Dims; ++sign) prefetch(sign, plan.packet[2 * k + c]);
            group.last(k, in);
            for (int c = 0; c < 2; ++c)
                if (scale_leaves<false>(c, plan.packet[2 * k + c])) scale_leaves<true>(c, plan.packet[2 * k + c]);
        } else {
            for (int c = 0; c < 2; ++c) {
                for (int sign = 0; sign < Dims; ++sign) read_leaf(c, sign, plan.packet[2 * k + c]);
                for (int i = 0; i < group.cascade.positions[plan.depth]; ++i) {
                    Vec<T> leaf[2][2] = {};
                    for (int sign = 0; sign < Dims; ++sign)
                        for (int part = 0; part < G::kParts; ++part)
                            leaf[sign][part] = load(group.leaf(c, sign, part) + i * kLanes<T>);
                    separate(c, i, leaf);
                }
            }
        }
    }

    // Ask for gradients: on their way while coefficients are made.
    void prefetch(int sign, int packet) const {
        for (int l = 0; l < lines.count; ++l) {
            const int64_t offset = offset_of(l, sign, packet);
            if (offset < 0) continue;
            for (int i = 0; i < source.end[l]; i += 64 / static_cast<int>(sizeof(T)))
                __builtin_prefetch(source.in[l] + offset + i, 0);
        }
    }

    int64_t offset_of(int lane, int sign, int packet) const {
        const Plan &plan = group.plan;
        const int at = Dims == 1 ? packet
                                 : ((((sign << plan.depth) + lines.packet[lane]) << plan.depth) + packet);
        return plan.place[at] < 0 ? -1 : plan.place[at] * source.channel;
    }

    // Numbers of kLanes cells from j on, `numbers` a cell, as vectors for each cell.
    void read_square(const int64_t *offset, int64_t part, int j, Vec<T> *cells) const {
        constexpr int n = kLanes<T>;
        for (int l = 0; l < n; ++l) {
            cells[l] = Vec<T>{};
            if (l >= lines.count || offset[l] < 0) continue;
            const T *const from = source.in[l] + offset[l] + part;
            const int first = maximum(source.first[l] - j, 0), end = minimum(source.end[l] - j, n);
            // For images, numbers after the cells of a line are not used.
            if (first == 0 && (end == n || (Dims == 2 && source.end_of_all - from - j >= n))) {
                cells[l] = load(from + j);
            } else {
                T some[n] = {};
                for (int i = first; i < end; ++i) some[i] = from[j + i];
                cells[l] = load(some);
            }
        }
        transpose<T>(cells);
    }

    // The same for complex numbers.
    void read_complex(const int64_t *offset, int j, Vec<T> *re, Vec<T> *im) const {
        constexpr int n = kLanes<T>;
        for (int l = 0; l < n; ++l) {
            re[l] = im[l] = Vec<T>{};
            if (l >= lines.count || offset[l] < 0) continue;
            const T *const from = source.in[l] + offset[l];
            const int first = maximum(source.first[l] - j, 0), end = minimum(source.end[l] - j, n);
            T a[n] = {}, b[n] = {};
            for (int i = first; i < end; ++i) {
                a[i] = from[2 * (j + i)];
                b[i] = from[2 * (j + i) + 1];
            }
            re[l] = load(a);
            im[l] = load(b);
        }
        transpose<T>(re);
        transpose<T>(im);
    }

    void offsets(int sign, int packet, int64_t *offset) const {
        for (int l = 0; l < lines.count; ++l) offset[l] = offset_of(l, sign, packet);
    }

    void read_leaf(int c, int sign, int packet) const {
        constexpr int n = kLanes<T>;
        int64_t offset[n];
        offsets(sign, packet, offset);
        const int cells = group.cascade.positions[group.plan.depth];
        for (int j = 0; j < cells; j += n) {
            Vec<T> re[n], im[n];
            if (What == kFirst) {
                read_square(offset, 0, j, re);
            } else if (job.kind == kComplex) {
                read_complex(offset, j, re, im);
            } else {
                read_square(offset, 0, j, re);
                read_square(offset, source.part, j, im);
            }
            for (int i = 0; i < n && j + i < cells; ++i) {
                store(group.leaf(c, sign, 0) + (j + i) * n, re[i]);
                if (What == kBoth) store(group.leaf(c, sign, 1) + (j + i) * n, im[i]);
            }
        }
    }

    // The gradients of moduli times the coefficients' directions. Return whether some need care.
    template <bool Careful>
    bool scale_leaves(int c, int packet) const {
        constexpr int n = kLanes<T>;
        const int cells = group.cascade.positions[group.plan.depth];
        auto bad = Vec<T>{} != Vec<T>{};
        for (int j = 0; j < cells; j += n) {
            Vec<T> g[Dims][n];
            for (int sign = 0; sign < Dims; ++sign) {
                int64_t offset[n];
                offsets(sign, packet, offset);
                read_square(offset, 0, j, g[sign]);
            }
            for (int i = 0; i < n && j + i < cells; ++i) {
                Vec<T> leaf[2][2] = {};
                for (int sign = 0; sign < Dims; ++sign) {
                    Vec<T> &re = leaf[sign][0], &im = leaf[sign][1];
                    re = load(group.leaf(c, sign, 0) + (j + i) * n);
                    im = load(group.leaf(c, sign, 1) + (j + i) * n);
                    if (!Careful) bad |= unsafe<T>(square<T>(re, im));
                    direct<T, Careful>(re, im, g[sign][i]);
                }
                separate(c, j + i, leaf);
            }
        }
        return !Careful && any(bad);
    }

    // Set what a cell of a child is in both trees, from (sign, part).
    void separate(int c, int cell, const Vec<T> (*leaf)[2]) const {
        constexpr int n = kLanes<T>;
        const int s = group.plan.depth - 1;
        T *const to1 = child(s, 0, c) + cell * kWidth, *const to2 = child(s, 1, c) + cell * kWidth;
        if constexpr (Dims == 1) {
            store(to1, leaf[0][0]);
            store(to2, leaf[0][1]);
        } else {
            store(to1, leaf[0][0] + leaf[1][0]);
            if constexpr (What == kFirst) {
                store(to2, leaf[1][0] - leaf[0][0]);
            } else {
                store(to2, leaf[0][1] - leaf[1][1]);
                store(to1 + n, leaf[0][1] + leaf[1][1]);
                store(to2 + n, leaf[1][0] - leaf[0][0]);
            }
        }
    }
};

template <typename T>
inline void clear(T *to, ptrdiff_t count) {
    __builtin_memset(to, 0, static_cast<size_t>(count) * sizeof(T));
}

/// Add rows of the extended axis to those that they are copies of, in ascending order.
template <typename T>
inline void fold_rows(const Side &side, int positions, const T *extended, int width, T *to) {
    clear(to, static_cast<ptrdiff_t>(side.n) * width);
    for (int p = 0; p < positions; ++p, extended += width) {
        if (side.index[p] < 0) continue;
        T *const row = to + static_cast<ptrdiff_t>(side.index[p]) * width;
        for (int i = 0; i < width; i += kLanes<T>) store(row + i, load(row + i) + load(extended + i));
    }
}

/// Groups of lines of an image.
template <typename T, Leaf What, bool Modulus>
inline void group_adjoint(const Job &job, int64_t image, int number, void *base, Arena arena) {
    constexpr int n = kLanes<T>;
    const Plan &plan = *job.plan;
    Cascade cascade = cascade_of(plan, job.side[1].count);
    share(cascade, job.side[1], job.side[1].index);
    const Vertical<T> v = vertical_of<T>(job, base);
    const int columns = job.side[1].n, padded = ceiling(columns, n) * n;
    T *const turned = arena.take<T>(static_cast<size_t>(padded + 1) * 2 * n);
    T *const extended = arena.take<T>(static_cast<size_t>(cascade.positions[0]) * 2 * n);
    int32_t *const table = arena.take<int32_t>(static_cast<size_t>(cascade.positions[0]));
    int32_t *const packets = arena.take<int32_t>(static_cast<size_t>(cascade.nodes));
    Lines<T> lines;
    Source<T> source;
    Gradient<T, 2, What, Modulus> gradient{job, {plan, cascade, {}, nullptr, nullptr}, lines, source, {}, nullptr};
    gradient.room(arena);
    clear(gradient.zeros, gradient.kWidth);

    const int rows = v.rows, all = needed_packets(plan, packets) * rows, first = number * n;
    const int numbers = job.kind == kComplex ? 2 : 1;
    source.channel = static_cast<int64_t>(rows) * job.side[1].count * numbers;
    source.part = source.channel * plan.channels;
    const int64_t all_of_image = source.part * (job.kind == kParts ? 2 : 1);
    const T *const c = static_cast<const T *>(job.coefficients) + image * all_of_image;
    source.end_of_all = c + (job.batch - image) * all_of_image;
    lines.count = minimum(all - first, n);
    for (int l = 0; l < lines.count; ++l) {
        lines.packet[l] = packets[(first + l) / rows];
        lines.row[l] = (first + l) % rows;
        source.in[l] = c + static_cast<int64_t>(lines.row[l]) * job.side[1].count * numbers;
        source.first[l] = 0;
        source.end[l] = job.side[1].count;
    }
    Rows<T> in[2] = {{turned, 0, table}, {turned, 0, table}};
    if (Modulus) {
        turn_lines(plan, v, lines, columns, turned);
        clear(turned + padded * 2 * n, 2 * n);
        for (int p = 0; p < cascade.positions[0]; ++p) {
            const int place = job.side[1].index[p];
            table[p] = (place < 0 ? padded : place) * 2 * n;
        }
    }
    clear(extended, static_cast<ptrdiff_t>(cascade.positions[0]) * 2 * n);
    const To<T> out[2] = {{extended, 2 * n}, {extended + (What == kFirst ? n : 0), 2 * n}};
    gradient.node(0, 0, in, out, true);
    fold_rows(job.side[1], cascade.positions[0], extended, 2 * n, turned);
    for (int tree = 0; tree < 2; ++tree) {
        for (int column = 0; column < columns; column += n) {
            Vec<T> square[n];
            for (int l = 0; l < n; ++l)
                square[l] = load(turned + (minimum(column + l, columns - 1) * 2 + tree) * n);
            transpose<T>(square);
            for (int l = 0; l < lines.count; ++l)
                store(v.line(plan, tree, lines.packet[l], lines.row[l]) + column, square[l]);
        }
    }
}

// Vertical -----------------------------------------------------------------------------------------

/// Vectors in a strip: the transpose of a stage has both children and both parities in registers.
constexpr int kAdjointStrip = 2;

template <typename T, int C>
struct StripAdjoint {
    static constexpr int kWidth = C * kLanes<T>;

    const Plan &plan;
    const Cascade &cascade;
    Vertical<T> v;
    int column;
    T *zeros;
    T *up[kMaxDepth];

    T *child(int s, int which) const {
        const int rows = cascade.positions[s + 1] + 2 * kSlack;
        return up[s] + (which * rows + kSlack) * kWidth;
    }

    void node(int s, int tree, int k, const To<T> out, bool add) const {
        const uint8_t *needed = plan.rows + (2 << s) + 2 * k;
        Rows<T> below[2];
        for (int c = 0; c < 2; ++c) {
            if (!needed[c]) {
                below[c] = nothing(zeros);
            } else if (s == plan.depth - 1) {
                below[c] = {v.line(plan, tree, plan.packet[2 * k + c], 0) + column, v.step, nullptr};
            } else {
                T *const to = child(s, c);
                node(s + 1, tree, 2 * k + c, {to, kWidth}, false);
                if (s == 0) {
                    clear(to - kSlack * kWidth, kSlack * kWidth);
                    clear(to + cascade.positions[1] * kWidth, kSlack * kWidth);
                }
                below[c] = {to, kWidth, nullptr};
            }
        }
        stage_adjoint<T, C>(plan, cascade, s, tree, k, below[0], below[1], out, add);
    }
};

template <typename T>
inline size_t strip_adjoint_scratch(const Job &job, const Cascade &cascade, Arena &arena, T **up,
                                    T *&zeros, T *&extended, T *&folded) {
    constexpr size_t width = kAdjointStrip * kLanes<T>;
    for (int s = 0; s + 1 < cascade.depth; ++s)
        up[s] = arena.take<T>(2 * static_cast<size_t>(cascade.positions[s + 1] + 2 * kSlack) * width);
    zeros = arena.take<T>(width);
    extended = arena.take<T>(static_cast<size_t>(cascade.positions[0]) * width);
    folded = arena.take<T>(static_cast<size_t>(job.side[0].n) * width);
    return arena.used();
}

template <typename T, int C>
inline void strip_adjoint(const Job &job, int64_t image, int column, int count, void *base,
                          Arena arena) {
    constexpr int width = C * kLanes<T>;
    const Plan &plan = *job.plan;
    const Cascade cascade = cascade_of(plan, job.side[0].count);
    StripAdjoint<T, C> strip{plan, cascade, vertical_of<T>(job, base), column, nullptr, {}};
    T *extended, *folded;
    strip_adjoint_scratch<T>(job, cascade, arena, strip.up, strip.zeros, extended, folded);
    const int columns = job.side[1].n;
    T *out = static_cast<T *>(job.out) + image * job.side[0].n * columns + column;
    for (int y = 0; y < job.side[0].n; ++y) __builtin_prefetch(out + static_cast<ptrdiff_t>(y) * columns, 1);
    clear(strip.zeros, width);
    clear(extended, static_cast<ptrdiff_t>(cascade.positions[0]) * width);
    for (int tree = 0; tree < 2; ++tree) strip.node(0, tree, 0, {extended, width}, true);
    fold_rows(job.side[0], cascade.positions[0], extended, width, folded);
    for (int y = 0; y < job.side[0].n; ++y, out += columns)
        __builtin_memcpy(out, folded + y * width, static_cast<size_t>(count) * sizeof(T));
}

// Signals ------------------------------------------------------------------------------------------

/// The extended signals behind kLanes segments of block_columns * stride samples.
template <typename T, Leaf What>
inline void segments_adjoint(const Job &job, int64_t group, T *to, Arena arena) {
    constexpr int n = kLanes<T>;
    const Plan &plan = *job.plan;
    const Side &side = job.side[1];
    const int before = ceiling(plan.length, plan.stride) - 1;  // cells that reach into a segment
    const Cascade cascade = cascade_of(plan, job.block_columns + before);
    const int padded = ceiling(cascade.positions[0], n) * n;
    T *const local = arena.take<T>(static_cast<size_t>(padded) * n);
    Lines<T> lines;
    Source<T> source;
    Gradient<T, 1, What, false> gradient{job, {plan, cascade, {}, nullptr, nullptr}, lines, source, {}, nullptr};
    gradient.room(arena);
    clear(gradient.zeros, gradient.kWidth);

    const int samples = (side.count - 1) * plan.stride + plan.length;
    const int run = job.block_columns * plan.stride, segments = ceiling(samples, run);
    const int numbers = job.kind == kComplex ? 2 : 1;
    source.channel = static_cast<int64_t>(side.count) * numbers;
    source.part = source.channel * plan.channels;
    source.end_of_all = nullptr;
    const int64_t left = job.batch * segments - group * n;
    lines.count = left < n ? static_cast<int>(left) : n;
    int first[n];
    T *out[n];
    for (int l = 0; l < lines.count; ++l) {
        const int64_t segment = group * n + l, signal = segment / segments;
        const int at = static_cast<int>(segment % segments);
        const int cell = at * job.block_columns - before;
        source.in[l] = static_cast<const T *>(job.coefficients) +
                       signal * source.part * (job.kind == kParts ? 2 : 1) + cell * numbers;
        source.first[l] = -cell;
        source.end[l] = minimum(side.count - cell, job.block_columns + before);
        lines.packet[l] = 0;
        first[l] = at * run;
        out[l] = to + signal * samples + first[l];
    }
    clear(local, static_cast<ptrdiff_t>(padded) * n);
    const Rows<T> in[2] = {};
    const To<T> trees[2] = {{local, n}, {local, n}};
    gradient.node(0, 0, in, trees, true);
    const T *const from = local + static_cast<ptrdiff_t>(before) * plan.stride * n;
    for (int p = 0; p < run; p += n) {
        Vec<T> square[n];
        for (int i = 0; i < n; ++i) square[i] = load(from + minimum(p + i, run - 1) * n);
        transpose<T>(square);
        for (int l = 0; l < lines.count; ++l) {
            const int count = minimum(minimum(run, samples - first[l]) - p, n);
            if (count > 0) store_up_to(out[l] + p, square[l], count);
        }
    }
}

}  // namespace
