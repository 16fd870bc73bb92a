// The functions of one instruction set: compiled once for each, with DTWPT_NAME and DTWPT_BYTES.

#include "adjoint.h"

#ifndef DTWPT_NAME
#error "DTWPT_NAME is the name of the instruction set"
#endif

namespace {

template <typename T>
Leaf leaf_of(const Job &job) {
    if (job.kind == kModulus) return kRoot;
    return job.kind == kReal || job.kind == kRMax ? kFirst : kBoth;
}

template <typename T>
size_t forward_scratch(const Job *job) {
    const Leaf leaf = leaf_of<T>(*job);
    if (job->plan->ndim == 1)
        return leaf == kRoot    ? segments_room<T, kRoot>(*job)
               : leaf == kFirst ? segments_room<T, kFirst>(*job)
                                : segments_room<T, kBoth>(*job);
    return leaf == kRoot    ? forward_room<T, kRoot>(*job)
           : leaf == kFirst ? forward_room<T, kFirst>(*job)
                            : forward_room<T, kBoth>(*job);
}

template <typename T>
void forward(const Job *job, int64_t image, int row, int column, void *out, int64_t channel,
             int64_t row_step, int64_t part, void *scratch) {
    T *const to = static_cast<T *>(out);
    switch (leaf_of<T>(*job)) {
        case kRoot:
            return forward_block<T, kRoot>(*job, image, row, column, to, channel, row_step, part, scratch);
        case kFirst:
            return forward_block<T, kFirst>(*job, image, row, column, to, channel, row_step, part, scratch);
        case kBoth:
            return forward_block<T, kBoth>(*job, image, row, column, to, channel, row_step, part, scratch);
    }
}

template <typename T>
void forward_lines(const Job *job, int64_t group, void *scratch) {
    switch (leaf_of<T>(*job)) {
        case kRoot: return forward_segments<T, kRoot>(*job, group, scratch);
        case kFirst: return forward_segments<T, kFirst>(*job, group, scratch);
        case kBoth: return forward_segments<T, kBoth>(*job, group, scratch);
    }
}

template <typename T>
size_t adjoint_scratch(const Job *job) {
    // An upper bound: counted as for both parts.
    Arena arena(nullptr);
    const Plan &plan = *job->plan;
    if (plan.ndim == 1) {
        const int before = ceiling(plan.length, plan.stride) - 1;
        const Cascade cascade = cascade_of(plan, job->block_columns + before);
        arena.take<T>(static_cast<size_t>(cascade.positions[0] + kLanes<T>) * kLanes<T>);
        Lines<T> lines;
        Source<T> source;
        Gradient<T, 1, kBoth, false> gradient{*job, {plan, cascade, {}, nullptr, nullptr}, lines, source, {}, nullptr};
        gradient.room(arena);
        return arena.used();
    }
    const Cascade horizontal = cascade_of(plan, job->side[1].count);
    arena.take<T>(static_cast<size_t>(job->side[1].n + kLanes<T> + 1) * 2 * kLanes<T>);
    arena.take<T>(static_cast<size_t>(horizontal.positions[0]) * 2 * kLanes<T>);
    arena.take<int32_t>(static_cast<size_t>(horizontal.positions[0]));
    arena.take<int32_t>(static_cast<size_t>(horizontal.nodes));
    Lines<T> lines;
    Source<T> source;
    Gradient<T, 2, kBoth, true> gradient{*job, {plan, horizontal, {}, nullptr, nullptr}, lines, source, {}, nullptr};
    gradient.room(arena);

    const Cascade vertical = cascade_of(plan, job->side[0].count);
    Arena strip(nullptr);
    T *up[kMaxDepth], *zeros, *extended, *folded;
    const size_t adjoint = strip_adjoint_scratch<T>(*job, vertical, strip, up, zeros, extended, folded);
    const size_t forward = strip_scratch<T>(vertical, window_size(job->side[0], vertical.positions[0]));
    size_t most = arena.used();
    if (adjoint > most) most = adjoint;
    return forward > most ? forward : most;
}

template <typename T>
void columns_forward(const Job *job, int64_t image, int strip, void *v, void *scratch) {
    const Plan &plan = *job->plan;
    Cascade cascade = cascade_of(plan, job->side[0].count);
    share(cascade, job->side[0], job->side[0].index);
    const int columns = job->side[1].n, width = job->block_columns * kLanes<T>, first = strip * width;
    const T *const x = static_cast<const T *>(job->x) + image * job->side[0].n * columns;
    filter_strip(plan, cascade, x, columns, window_of(job->side[0], 0, cascade.positions[0]),
                 whole(job->side[1]), vertical_of<T>(*job, v), first, minimum(width, columns - first),
                 Arena(scratch));
}

template <typename T>
void rows_adjoint(const Job *job, int64_t image, int group, void *v, int modulus, void *scratch) {
    const Arena arena(scratch);
    if (modulus)
        group_adjoint<T, kBoth, true>(*job, image, group, v, arena);
    else if (job->kind == kReal)
        group_adjoint<T, kFirst, false>(*job, image, group, v, arena);
    else
        group_adjoint<T, kBoth, false>(*job, image, group, v, arena);
}

template <typename T>
void columns_adjoint(const Job *job, int64_t image, int strip, void *v, void *scratch) {
    const int width = minimum(job->block_columns, kAdjointStrip) * kLanes<T>, first = strip * width;
    const int count = minimum(width, job->side[1].n - first);
    if (count > kLanes<T>)
        strip_adjoint<T, 2>(*job, image, first, count, v, Arena(scratch));
    else
        strip_adjoint<T, 1>(*job, image, first, count, v, Arena(scratch));
}

template <typename T>
void lines_adjoint(const Job *job, int64_t group, void *extended, void *scratch) {
    if (job->kind == kReal)
        segments_adjoint<T, kFirst>(*job, group, static_cast<T *>(extended), Arena(scratch));
    else
        segments_adjoint<T, kBoth>(*job, group, static_cast<T *>(extended), Arena(scratch));
}

template <typename T>
void fold(const Job *job, int64_t signal, const void *extended) {
    const Side &side = job->side[1];
    const int samples = (side.count - 1) * job->plan->stride + job->plan->length;
    const T *const from = static_cast<const T *>(extended) + signal * samples;
    T *const to = static_cast<T *>(job->out) + signal * side.n;
    clear(to, side.n);
    for (int p = 0; p < samples; ++p)
        if (side.index[p] >= 0) to[side.index[p]] += from[p];
}

template <typename T>
void scale(void *real, void *imaginary, const void *g, int64_t n) {
    T *re = static_cast<T *>(real), *im = static_cast<T *>(imaginary);
    const T *gradients = static_cast<const T *>(g);
    for (int64_t i = 0; i < n; i += kLanes<T>) {
        const int count = n - i < kLanes<T> ? static_cast<int>(n - i) : kLanes<T>;
        Vec<T> a = load_up_to(re + i, count), b = load_up_to(im + i, count);
        direct<T, true>(a, b, load_up_to(gradients + i, count));
        store_up_to(re + i, a, count);
        store_up_to(im + i, b, count);
    }
}

template <typename T>
void sum_rows(const void *map, int rows, int columns, int64_t row_step, void *sums) {
    const T *from = static_cast<const T *>(map);
    T *const to = static_cast<T *>(sums);
    for (int i = 0; i < columns; ++i) to[i] = from[i];
    for (int y = 1; y < rows; ++y) {
        from += row_step;
        for (int i = 0; i < columns; ++i) to[i] += from[i];
    }
}

template <typename T>
void spread_rows(const void *map, int rows, int columns, int64_t row_step, double *sums, double *squares) {
    const T *const from = static_cast<const T *>(map);
    for (int i = 0; i < columns; ++i) sums[i] = from[i];
    for (int y = 1; y < rows; ++y)
        for (int i = 0; i < columns; ++i) sums[i] += static_cast<double>(from[y * row_step + i]);
    constexpr int width = 64;
    for (int first = 0; first < columns; first += width) {
        const int count = minimum(width, columns - first);
        double means[width];
        for (int i = 0; i < count; ++i) {
            means[i] = sums[first + i] / rows;
            squares[first + i] = 0;
        }
        for (int y = 0; y < rows; ++y)
            for (int i = 0; i < count; ++i) {
                const double off = static_cast<double>(from[y * row_step + first + i]) - means[i];
                squares[first + i] = __builtin_fma(off, off, squares[first + i]);
            }
    }
}

template <typename T>
void most_of_rows(const void *map, int rows, int columns, int64_t row_step, void *maxima) {
    const T *from = static_cast<const T *>(map);
    T *const to = static_cast<T *>(maxima);
    for (int i = 0; i < columns; ++i) to[i] = from[i];
    for (int y = 1; y < rows; ++y) {
        from += row_step;
        for (int i = 0; i < columns; ++i) to[i] = from[i] > to[i] || from[i] != from[i] ? from[i] : to[i];
    }
}

template <typename T>
constexpr Kernels kernels() {
    return {kLanes<T>,        forward_scratch<T>, adjoint_scratch<T>, forward<T>,     forward_lines<T>,
            columns_forward<T>, rows_adjoint<T>,  columns_adjoint<T>, lines_adjoint<T>, fold<T>,
            scale<T>,         sum_rows<T>,        spread_rows<T>,     most_of_rows<T>};
}

}  // namespace

#define DTWPT_JOIN(a, b) a##b
#define DTWPT_TABLE(name) DTWPT_JOIN(dtwpt_kernels_, name)

/// Kernels for float32 and float64.
extern const Kernels DTWPT_TABLE(DTWPT_NAME)[2];
const Kernels DTWPT_TABLE(DTWPT_NAME)[2] = {kernels<float>(), kernels<double>()};
