// Parameters of a call, as packed by the loader and read by all parts of the library.
#pragma once

#include <stddef.h>
#include <stdint.h>

enum { kMaxDepth = 12 };

enum Kind { kComplex, kParts, kReal, kModulus, kRMax };

/// An analysis; __init__.py has the same structure.
struct Plan {
    int32_t depth, ndim, stride, pool, channels;
    int32_t length;                   ///< taps of the composite filters
    int32_t taps_first, taps_later;   ///< taps of the first stage, without common zeros; of the others
    int32_t shift[2][2];              ///< where they start in the first stage: (tree, child)
    const void *taps;                 ///< stage after stage: (tree, node, tap, child)
    const int32_t *packet;            ///< packet of each node of the last stage
    const int32_t *place;             ///< channel of (sign, row packet, column packet), or of packet
    const uint8_t *rows, *columns;    ///< whether node k of level s is needed, at 2^s + k
};

struct Side {
    int32_t n, count;
    const int32_t *index;
};

/// One call. Blocks are in cells of the maps; `side` are the axes, the last one along rows of pixels.
struct Job {
    const Plan *plan;
    Side side[2];
    int32_t kind;
    int64_t batch;
    const void *x;  ///< signals or images
    void *out;
    const void *coefficients;  ///< what an adjoint is applied to
    int32_t map_rows, map_columns;
    int32_t block_rows, block_columns;
    /// For each row of a map twice the place of the sum that it is part of, and 1 if it is the first;
    /// null if maps are wanted. Sums have whole vectors: row_step numbers from place to place.
    const int32_t *places;
};

namespace {

/// Positions of a cascade that ends in a number of cells.
struct Cascade {
    int depth, nodes;
    int hop[kMaxDepth], dilation[kMaxDepth], taps[kMaxDepth];
    int positions[kMaxDepth + 1];  ///< of the input of each stage; of the cells
    size_t filters[kMaxDepth];     ///< where the taps of each stage begin
    int distinct;                  ///< outputs of the first stage before they repeat themselves
};

inline Cascade cascade_of(const Plan &plan, int cells) {
    Cascade c;
    c.depth = plan.depth;
    c.nodes = 1 << plan.depth;
    size_t filters = 0;
    for (int s = 0; s < c.depth; ++s) {
        const int step = 1 << s < plan.stride ? 1 << s : plan.stride;
        const int next = 2 << s < plan.stride ? 2 << s : plan.stride;
        c.hop[s] = next / step;
        c.dilation[s] = (1 << s) / step;
        c.taps[s] = s ? plan.taps_later : plan.taps_first;
        c.filters[s] = filters;
        filters += static_cast<size_t>(4 << s) * static_cast<size_t>(c.taps[s]);
    }
    c.positions[c.depth] = cells;
    for (int s = c.depth - 1; s > 0; --s)
        c.positions[s] = c.hop[s] * (c.positions[s + 1] - 1) + c.dilation[s] * (c.taps[s] - 1) + 1;
    c.positions[0] = (cells - 1) * plan.stride + plan.length;
    c.distinct = c.positions[1];
    return c;
}

/// See whether the extended axis repeats itself, as that of a small image does: its first stage, the
/// longest one, is then filtered once. `index` are its samples.
inline void share(Cascade &c, const Side &side, const int32_t *index) {
    const int periods[] = {side.n, 2 * side.n - 2, 2 * side.n};
    for (int period : periods) {
        if (c.depth == 1 || period <= 0 || period % c.hop[0] || period / c.hop[0] >= c.positions[1])
            continue;
        int p = 0;
        while (p + period < c.positions[0] && index[p] == index[p + period]) ++p;
        if (p + period < c.positions[0]) continue;
        c.distinct = period / c.hop[0];
        return;
    }
}

/// Fill in where the outputs of the first stage are found, in numbers, and return the table; null if
/// they do not repeat themselves.
inline const int32_t *repeat(const Cascade &c, int width, int32_t *table) {
    if (!table || c.distinct == c.positions[1]) return nullptr;
    for (int n = 0; n < c.positions[1]; ++n) table[n] = n % c.distinct * width;
    return table;
}

/// Cells behind a number of outputs, which are pooled with stride 2 or not at all.
inline int cells_of(const Plan &plan, int outputs) {
    return plan.pool ? 2 * outputs - 2 + plan.pool : outputs;
}

inline int minimum(int a, int b) { return a < b ? a : b; }
inline int maximum(int a, int b) { return a > b ? a : b; }
inline int ceiling(int a, int b) { return (a + b - 1) / b; }

/// Pieces of one block of memory, each on a cache line; with no memory it only counts.
class Arena {
  public:
    explicit Arena(void *memory) : memory_(static_cast<char *>(memory)) {}

    template <typename T>
    T *take(size_t count) {
        char *piece = memory_ ? memory_ + used_ : nullptr;
        // One line more, so that pieces that are powers of two do not share the lines of a cache.
        used_ += (count * sizeof(T) + 127) / 64 * 64;
        return reinterpret_cast<T *>(piece);
    }

    size_t used() const { return used_; }

  private:
    char *memory_;
    size_t used_ = 0;
};

}  // namespace

/// Functions of one instruction set for one type of numbers.
struct Kernels {
    int lanes;
    /// Bytes of scratch that an item of each kind of work needs.
    size_t (*forward_scratch)(const Job *);
    size_t (*adjoint_scratch)(const Job *);

    /// Analyse a block of images, or of signals: outputs from row and column on, at most a block.
    /// To `out`, whose maps are `channel` numbers and rows `row` numbers apart.
    void (*forward)(const Job *, int64_t image, int row, int column, void *out, int64_t channel,
                    int64_t row_step, int64_t part, void *scratch);
    /// Analyse `kLanes` segments of signals, of block_columns outputs each.
    void (*forward_lines)(const Job *, int64_t group, void *scratch);

    /// Phases of an adjoint of images, over the numbers that the vertical filters give or take.
    void (*columns_forward)(const Job *, int64_t image, int strip, void *v, void *scratch);
    void (*rows_adjoint)(const Job *, int64_t image, int group, void *v, int modulus, void *scratch);
    void (*columns_adjoint)(const Job *, int64_t image, int strip, void *v, void *scratch);
    /// Phases of an adjoint of signals.
    void (*lines_adjoint)(const Job *, int64_t group, void *extended, void *scratch);
    void (*fold)(const Job *, int64_t signal, const void *extended);

    /// c *= g / |c|: n numbers of real parts, imaginary parts and gradients.
    void (*scale)(void *real, void *imaginary, const void *g, int64_t n);
    /// Of each column of a run of rows of a map: the sum; the sum, and that of the squares about the
    /// mean; the largest number, or NaN if there is one.
    void (*sum_rows)(const void *map, int rows, int columns, int64_t row_step, void *sums);
    void (*spread_rows)(const void *map, int rows, int columns, int64_t row_step, double *sums,
                        double *squares);
    void (*most_of_rows)(const void *map, int rows, int columns, int64_t row_step, void *maxima);
};
