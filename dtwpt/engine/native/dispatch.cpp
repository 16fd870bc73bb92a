// The C interface: work items, threads, and the choice of an instruction set.
//
// Compiled for any machine. Threads live as long as a call, and only where there is work for them;
// results do not depend on how many there are, nor on how images are cut into blocks.

#include <atomic>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>
#include <thread>

#include "plan.h"

#if defined(__x86_64__)
extern const Kernels dtwpt_kernels_avx2[2];
#if defined(DTWPT_AVX512)
extern const Kernels dtwpt_kernels_avx512[2];
#endif
#else
extern const Kernels dtwpt_kernels_neon[2];
#endif

namespace {

enum Result { kDone, kNoMemory };

struct InstructionSet {
    const char *name;
    const Kernels *kernels;
    bool (*supported)();
};

// In order of preference.
const InstructionSet kSets[] = {
#if defined(DTWPT_AVX512)
    {"avx512", dtwpt_kernels_avx512,
     [] {
         return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
                __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512bw");
     }},
#endif
#if defined(__x86_64__)
    {"avx2", dtwpt_kernels_avx2,
     [] { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }},
#else
    {"neon", dtwpt_kernels_neon, [] { return true; }},
#endif
};
constexpr int kSetCount = sizeof(kSets) / sizeof(*kSets);

// Threads ------------------------------------------------------------------------------------------

struct Free {
    void operator()(void *memory) const { std::free(memory); }
};
typedef std::unique_ptr<void, Free> Memory;

Memory allocate(size_t bytes, bool poison) {
    const size_t whole = (bytes + 64) / 64 * 64;
    Memory memory(std::aligned_alloc(64, whole));
    if (memory && poison) std::memset(memory.get(), 0xff, whole);
    return memory;
}

/// Execution settings of a call.
struct Run {
    int threads;
    bool poison;  ///< fill scratch with NaN before each item

    /// Call work(item, scratch) for each item, in any order and thread.
    template <typename Work>
    Result over(int64_t items, size_t scratch, const Work &work) const {
        std::atomic<int64_t> next(0), done(0);
        // Small enough for threads to end together, large enough not to wait for the counter.
        int64_t grain = items / (threads * 16);
        grain = grain < 1 ? 1 : grain > 16 ? 16 : grain;
        const auto worker = [&] {
            const Memory memory = allocate(scratch, poison);
            if (!memory) return;
            for (;;) {
                const int64_t first = next.fetch_add(grain);
                if (first >= items) return;
                const int64_t end = first + grain < items ? first + grain : items;
                for (int64_t item = first; item < end; ++item) {
                    if (poison) std::memset(memory.get(), 0xff, scratch);
                    work(item, memory.get());
                }
                done += end - first;
            }
        };
        int64_t wanted = (items + grain - 1) / grain;
        if (wanted > threads) wanted = threads;
        const int others = static_cast<int>(wanted) - 1;
        std::unique_ptr<std::thread[]> pool(others > 0 ? new (std::nothrow) std::thread[static_cast<size_t>(others)]
                                                       : nullptr);
        int started = 0;
        try {
            for (; pool && started < others; ++started) pool[static_cast<size_t>(started)] = std::thread(worker);
        } catch (...) {  // no more threads can be created: the existing ones do all the work
        }
        worker();
        for (int i = 0; i < started; ++i) pool[static_cast<size_t>(i)].join();
        return done == items ? kDone : kNoMemory;
    }
};

/// As many threads as the work is worth, a millisecond at least.
int threads_for(const Job &job, int lanes, int threads) {
    const Plan &plan = *job.plan;
    double samples = static_cast<double>(job.batch) * job.side[1].n;
    double vectors = 2.0 * plan.taps_later * plan.depth * (1 << plan.depth) / plan.stride;
    if (plan.ndim == 2) {
        samples *= job.side[0].n;
        vectors *= 3.0 * (1 << plan.depth) / plan.stride;
    }
    const double milliseconds = samples * vectors / lanes / 2.5e6;
    if (milliseconds < 1) return 1;
    return milliseconds * 2 < threads ? static_cast<int>(milliseconds * 2) : threads;
}

// Analysis -----------------------------------------------------------------------------------------

int64_t vertical_bytes(const Job &job, int cells, int columns, size_t size) {
    return (static_cast<int64_t>(2) << job.plan->depth) * cells * (columns + 32) * static_cast<int64_t>(size);
}

/// Cut maps into blocks whose buffers fit the second cache, if the filters are not too long for that.
void cut(Job &job, size_t size, int multiple) {
    const Plan &plan = *job.plan;
    const int64_t budget = 640 << 10;
    job.block_rows = job.map_rows;
    job.block_columns = job.map_columns;
    if (vertical_bytes(job, cells_of(plan, job.map_rows), job.side[1].n, size) <= budget) return;
    const int hop = plan.pool ? 2 * plan.stride : plan.stride;
    const int side = maximum(320, 2 * plan.length);  // shared work is repeated in each block
    const int across = ceiling(job.map_columns, maximum(1, side / hop));
    job.block_columns = ceiling(job.map_columns, across);
    const int columns = minimum(job.side[1].n, job.block_columns * hop + plan.length);
    const int64_t a_row = vertical_bytes(job, plan.pool ? 2 : 1, columns, size);
    const int64_t fit = budget / a_row;
    const int least = ceiling(plan.length, hop);
    int rows = fit > job.map_rows ? job.map_rows : static_cast<int>(fit);
    rows = minimum(maximum(maximum(rows, least), 1), job.map_rows);
    rows = ceiling(job.map_rows, ceiling(job.map_rows, rows));
    job.block_rows = minimum(ceiling(rows, multiple) * multiple, job.map_rows);
}

/// Cut signals into segments that keep all lanes of all threads busy.
void cut_lines(Job &job, int lanes, int threads) {
    const Plan &plan = *job.plan;
    const int hop = plan.pool ? 2 * plan.stride : plan.stride;
    const int reach = ceiling(plan.length, hop);
    const int64_t all = job.batch * job.map_columns;
    const int64_t share = (all + lanes * threads - 1) / (lanes * threads);
    int block = maximum(64, 4 * reach);
    if (share < block) block = maximum(static_cast<int>(share), reach);
    job.block_columns = minimum(block, job.map_columns);
    job.block_rows = 1;
}

int numbers_of(const Job &job) { return job.kind == kComplex ? 2 : 1; }

/// Size of the maps of an image, in numbers.
int64_t image_numbers(const Job &job) {
    return static_cast<int64_t>(job.plan->channels) * job.map_rows * job.map_columns *
           (job.kind == kComplex || job.kind == kParts ? 2 : 1);
}

Result analyse_signals(Job job, const Kernels &kernels, const Run &run) {
    cut_lines(job, kernels.lanes, run.threads);
    const int64_t lines = job.batch * ceiling(job.map_columns, job.block_columns);
    return run.over((lines + kernels.lanes - 1) / kernels.lanes, kernels.forward_scratch(&job),
                    [&](int64_t item, void *scratch) { kernels.forward_lines(&job, item, scratch); });
}

Result analyse(Job job, const Kernels &kernels, size_t size, const Run &run) {
    if (job.plan->ndim == 1) return analyse_signals(job, kernels, run);
    cut(job, size, 1);
    const int down = ceiling(job.map_rows, job.block_rows);
    const int across = ceiling(job.map_columns, job.block_columns);
    const int64_t row_step = static_cast<int64_t>(job.map_columns) * numbers_of(job);
    const int64_t channel = row_step * job.map_rows, image = image_numbers(job);
    char *const out = static_cast<char *>(job.out);
    return run.over(job.batch * down * across, kernels.forward_scratch(&job),
                    [&](int64_t item, void *scratch) {
                        const int64_t number = item / (down * across);
                        const int block = static_cast<int>(item % (down * across));
                        const int row = block / across * job.block_rows;
                        const int column = block % across * job.block_columns;
                        const int64_t at = number * image + row * row_step + column * numbers_of(job);
                        kernels.forward(&job, number, row, column, out + at * static_cast<int64_t>(size),
                                        channel, row_step, channel * job.plan->channels, scratch);
                    });
}

// Pooling ------------------------------------------------------------------------------------------

/// Statistics over the cells of a grid, in this order, as bit flags.
enum Statistic { kMeans = 1, kDeviations = 2, kMaxima = 4 };

/// Sums over runs of rows: those of 16 rows, ending also where cells of the grid do. Sums are of
/// numbers as they are, then of double precision over columns and runs, in ascending order.
struct Grid {
    const Job &job;
    int rows, columns;
    int lanes;

    int row_cut(int part) const { return static_cast<int>(static_cast<int64_t>(part) * job.map_rows / rows); }
    int column_cut(int part) const {
        return static_cast<int>(static_cast<int64_t>(part) * job.map_columns / columns);
    }
    /// Runs lie at rows / 16 + their cell of the grid: few places stay empty.
    int places() const { return (job.map_rows - 1) / 16 + rows; }
    /// Numbers of a sum: whole vectors for each block.
    int numbers() const { return ceiling(job.map_columns, job.block_columns) * padded(); }
    int padded() const { return ceiling(job.block_columns, lanes) * lanes; }
    int at(int column) const { return column / job.block_columns * padded() + column % job.block_columns; }
    int64_t of_channel(int channel) const {
        return static_cast<int64_t>(channel) * places() * numbers();
    }
    double cells(int row, int column) const {
        return static_cast<double>(row_cut(row + 1) - row_cut(row)) * (column_cut(column + 1) - column_cut(column));
    }

    /// Call run(place, first, end) for each run of rows in a range.
    template <typename F>
    void runs(int part, int from, int to, const F &run) const {
        int first = maximum(from, row_cut(part));
        const int last = minimum(to, row_cut(part + 1));
        while (first < last) {
            const int end = minimum(last, first / 16 * 16 + 16);
            run(first / 16 + part, first, end);
            first = end;
        }
    }

    /// Call f(number, rows) for each column of each run of a cell, `number` its place in a channel.
    template <typename F>
    void over(int row, int column, const F &f) const {
        const int first = column_cut(column), last = column_cut(column + 1);
        runs(row, 0, job.map_rows, [&](int place, int from, int to) {
            for (int i = first; i < last;) {
                const int64_t number = static_cast<int64_t>(place) * numbers() + at(i);
                const int count = minimum(last - i, job.block_columns - i % job.block_columns);
                for (int k = 0; k < count; ++k) f(number + k, to - from);
                i += count;
            }
        });
    }
};

/// Partial sums of each column of each run of rows.
template <typename T>
struct Partials {
    int statistics;
    T *sums;
    double *totals, *squares;  ///< sums again, and those of squares about the mean of the run
    T *maxima;

    Partials(Arena &arena, const Grid &grid, int given) : statistics(given) {
        const size_t count = static_cast<size_t>(grid.of_channel(grid.job.plan->channels));
        sums = arena.take<T>(given & kMeans ? count : 0);
        totals = arena.take<double>(given & kDeviations ? count : 0);
        squares = arena.take<double>(given & kDeviations ? count : 0);
        maxima = arena.take<T>(given & kMaxima ? count : 0);
    }

    /// Add the maps of a block to the partial sums.
    void add(const Grid &grid, const Kernels &kernels, const T *maps, int row, int column) const {
        const Job &job = grid.job;
        const int rows = minimum(job.block_rows, job.map_rows - row);
        const int columns = minimum(job.block_columns, job.map_columns - column);
        for (int channel = 0; channel < job.plan->channels; ++channel) {
            const T *const map = maps + static_cast<int64_t>(channel) * rows * columns;
            for (int part = 0; part < grid.rows; ++part)
                grid.runs(part, row, row + rows, [&](int place, int first, int end) {
                    const T *const from = map + static_cast<int64_t>(first - row) * columns;
                    const int64_t to = grid.of_channel(channel) + grid.at(column) +
                                       static_cast<int64_t>(place) * grid.numbers();
                    if (statistics & kMeans) kernels.sum_rows(from, end - first, columns, columns, sums + to);
                    if (statistics & kDeviations)
                        kernels.spread_rows(from, end - first, columns, columns, totals + to, squares + to);
                    if (statistics & kMaxima)
                        kernels.most_of_rows(from, end - first, columns, columns, maxima + to);
                });
        }
    }

    /// Combine the partial sums: (statistic, channel, row, column).
    void finish(const Grid &grid, T *out) const {
        const auto each = [&](const auto &value) {
            for (int channel = 0; channel < grid.job.plan->channels; ++channel)
                for (int row = 0; row < grid.rows; ++row)
                    for (int column = 0; column < grid.columns; ++column)
                        *out++ = static_cast<T>(value(grid.of_channel(channel), row, column));
        };
        if (statistics & kMeans) each([&](int64_t at, int row, int column) {
            double total = 0;
            grid.over(row, column, [&](int64_t number, int) { total += sums[at + number]; });
            return total / grid.cells(row, column);
        });
        // About the mean of all, so that nothing cancels: equal values give 0.
        if (statistics & kDeviations) each([&](int64_t at, int row, int column) {
            double total = 0, square = 0;
            grid.over(row, column, [&](int64_t number, int) { total += totals[at + number]; });
            const double cells = grid.cells(row, column), mean = total / cells;
            grid.over(row, column, [&](int64_t number, int rows) {
                const double off = totals[at + number] - rows * mean;
                square += squares[at + number] + off * off / rows;
            });
            return __builtin_sqrt(square / cells);
        });
        if (statistics & kMaxima) each([&](int64_t at, int row, int column) {
            T most = -__builtin_inff();
            grid.over(row, column, [&](int64_t number, int) {
                const T value = maxima[at + number];
                if (value > most || value != value) most = value;
            });
            return most;
        });
    }
};

template <typename T>
Result pool(Job job, const Kernels &kernels, int grid_rows, int grid_columns, int statistics, const Run &run) {
    cut(job, sizeof(T), 16);
    const Grid grid{job, grid_rows, grid_columns, kernels.lanes};
    const int down = ceiling(job.map_rows, job.block_rows);
    const int across = ceiling(job.map_columns, job.block_columns), channels = job.plan->channels;
    const Memory table = allocate(sizeof(int32_t) * static_cast<size_t>(job.map_rows), false);
    if (!table) return kNoMemory;
    // Moduli are summed as they are computed; other statistics use the maps of a block.
    if (job.kind == kModulus && statistics == kMeans) {
        int32_t *const places = static_cast<int32_t *>(table.get());
        for (int part = 0; part < grid_rows; ++part)
            grid.runs(part, 0, job.map_rows, [&](int place, int first, int end) {
                for (int y = first; y < end; ++y) places[y] = 2 * place + (y == first);
            });
        job.places = places;
    }
    const size_t scratch = kernels.forward_scratch(&job);
    const size_t maps = job.places ? 0
                                   : static_cast<size_t>(channels) * static_cast<size_t>(job.block_rows) *
                                         static_cast<size_t>(job.block_columns);
    const int64_t numbers =
        static_cast<int64_t>(channels) * grid_rows * grid_columns * __builtin_popcount(static_cast<unsigned>(statistics));
    T *const out = static_cast<T *>(job.out);

    const auto block = [&](int64_t image, int number, void *memory, T *map, const Partials<T> &to) {
        const int row = number / across * job.block_rows, column = number % across * job.block_columns;
        if (job.places)
            return kernels.forward(&job, image, row, column, to.sums + grid.at(column), grid.of_channel(1),
                                   grid.numbers(), 0, memory);
        const int rows = minimum(job.block_rows, job.map_rows - row);
        const int columns = minimum(job.block_columns, job.map_columns - column);
        kernels.forward(&job, image, row, column, map, static_cast<int64_t>(rows) * columns, columns, 0, memory);
        to.add(grid, kernels, map, row, column);
    };
    Arena counting(nullptr);
    counting.take<char>(scratch);
    counting.take<T>(maps);
    const size_t of_block = counting.used();
    const Partials<T> counted(counting, grid, statistics);
    if (down * across == 1)
        return run.over(job.batch, counting.used(), [&](int64_t image, void *memory) {
            Arena arena(memory);
            arena.take<char>(scratch);
            T *const map = arena.take<T>(maps);
            const Partials<T> partials(arena, grid, statistics);
            block(image, 0, memory, map, partials);
            partials.finish(grid, out + image * numbers);
        });
    const Memory shared = allocate(counting.used() - of_block, run.poison);
    if (!shared) return kNoMemory;
    Arena arena(shared.get());
    const Partials<T> partials(arena, grid, statistics);
    for (int64_t image = 0; image < job.batch; ++image) {
        const Result result = run.over(down * across, of_block, [&](int64_t number, void *memory) {
            Arena own(memory);
            own.take<char>(scratch);
            block(image, static_cast<int>(number), memory, own.take<T>(maps), partials);
        });
        if (result != kDone) return result;
        partials.finish(grid, out + image * numbers);
    }
    return kDone;
}

// Adjoint ------------------------------------------------------------------------------------------

Job signals(const Job &job, int64_t first, int64_t count, size_t size) {
    Job some = job;
    const int64_t coefficients = image_numbers(job);
    some.batch = count;
    some.x = static_cast<const char *>(job.x) + first * job.side[1].n * static_cast<int64_t>(size);
    some.out = static_cast<char *>(job.out) + first * job.side[1].n * static_cast<int64_t>(size);
    some.coefficients =
        static_cast<const char *>(job.coefficients) + first * coefficients * static_cast<int64_t>(size);
    return some;
}

Result adjoint_signals(Job job, const Kernels &kernels, size_t size, const Run &run) {
    cut_lines(job, kernels.lanes, run.threads);
    const int samples = (job.side[1].count - 1) * job.plan->stride + job.plan->length;
    const int segments = ceiling(samples, job.block_columns * job.plan->stride);
    const size_t scratch = kernels.adjoint_scratch(&job);
    // A few signals at a time: their extended ones are held in memory.
    int64_t chunk = (32 << 20) / (static_cast<int64_t>(size) * samples);
    chunk = chunk < 1 ? 1 : chunk > job.batch ? job.batch : chunk;
    const Memory extended = allocate(static_cast<size_t>(chunk * samples) * size, run.poison);
    if (!extended) return kNoMemory;
    for (int64_t first = 0; first < job.batch; first += chunk) {
        const Job some = signals(job, first, first + chunk < job.batch ? chunk : job.batch - first, size);
        Result result = run.over((some.batch * segments + kernels.lanes - 1) / kernels.lanes, scratch,
                                 [&](int64_t item, void *memory) {
                                     kernels.lines_adjoint(&some, item, extended.get(), memory);
                                 });
        if (result == kDone)
            result = run.over(some.batch, 0,
                              [&](int64_t item, void *) { kernels.fold(&some, item, extended.get()); });
        if (result != kDone) return result;
    }
    return kDone;
}

Result modulus_signals(Job job, const Kernels &kernels, size_t size, const Run &run) {
    const int64_t numbers = image_numbers(job);
    int64_t chunk = (16 << 20) / (2 * static_cast<int64_t>(size) * numbers);
    chunk = chunk < 1 ? 1 : chunk > job.batch ? job.batch : chunk;
    const Memory memory = allocate(static_cast<size_t>(2 * chunk * numbers) * size, run.poison);
    if (!memory) return kNoMemory;
    char *const parts = static_cast<char *>(memory.get());
    const int64_t bytes = numbers * static_cast<int64_t>(size);
    for (int64_t first = 0; first < job.batch; first += chunk) {
        Job some = signals(job, first, first + chunk < job.batch ? chunk : job.batch - first, size);
        const char *const g = static_cast<const char *>(some.coefficients);
        void *const out = some.out;
        some.kind = kParts;
        some.out = parts;
        Result result = analyse_signals(some, kernels, run);
        for (int64_t i = 0; result == kDone && i < some.batch; ++i)
            kernels.scale(parts + 2 * i * bytes, parts + (2 * i + 1) * bytes, g + i * bytes, numbers);
        some.out = out;
        some.coefficients = parts;
        if (result == kDone) result = adjoint_signals(some, kernels, size, run);
        if (result != kDone) return result;
    }
    return kDone;
}

/// The adjoint of images, or the gradient of their moduli.
Result adjoint(Job job, const Kernels &kernels, size_t size, bool modulus, const Run &run) {
    if (job.plan->ndim == 1)
        return modulus ? modulus_signals(job, kernels, size, run)
                       : adjoint_signals(job, kernels, size, run);
    const Plan &plan = *job.plan;
    int packets = 0;
    for (int node = 1 << plan.depth; node < 2 << plan.depth; ++node) packets += plan.rows[node];
    const int vectors = ceiling(job.side[1].n, kernels.lanes);
    const int groups = ceiling(packets * job.side[0].count, kernels.lanes);
    const size_t v_bytes = static_cast<size_t>(
        vertical_bytes(job, job.side[0].count, ceiling(job.side[1].n, kernels.lanes) * kernels.lanes, size));
    const bool whole = v_bytes <= (4 << 20) && job.batch >= run.threads;
    // Strips in vectors: narrow ones keep the buffers of high images in the cache, and all threads busy.
    job.block_columns = job.side[0].n > 1024 ? 1 : vectors < 4 ? vectors : 4;
    const int down = ceiling(vectors, job.block_columns);
    const int up = ceiling(vectors, minimum(job.block_columns, 2));
    const size_t scratch = (kernels.adjoint_scratch(&job) + 63) / 64 * 64;
    if (whole)
        return run.over(job.batch, scratch + v_bytes, [&](int64_t image, void *memory) {
            void *const v = static_cast<char *>(memory) + scratch;
            for (int strip = 0; modulus && strip < down; ++strip)
                kernels.columns_forward(&job, image, strip, v, memory);
            for (int group = 0; group < groups; ++group)
                kernels.rows_adjoint(&job, image, group, v, modulus, memory);
            for (int strip = 0; strip < up; ++strip) kernels.columns_adjoint(&job, image, strip, v, memory);
        });
    const Memory shared = allocate(v_bytes, run.poison);
    if (!shared) return kNoMemory;
    for (int64_t image = 0; image < job.batch; ++image) {
        void *const v = shared.get();
        Result result = kDone;
        if (modulus)
            result = run.over(down, scratch, [&](int64_t strip, void *memory) {
                kernels.columns_forward(&job, image, static_cast<int>(strip), v, memory);
            });
        if (result == kDone)
            result = run.over(groups, scratch, [&](int64_t group, void *memory) {
                kernels.rows_adjoint(&job, image, static_cast<int>(group), v, modulus, memory);
            });
        if (result == kDone)
            result = run.over(up, scratch, [&](int64_t strip, void *memory) {
                kernels.columns_adjoint(&job, image, static_cast<int>(strip), v, memory);
            });
        if (result != kDone) return result;
    }
    return kDone;
}

}  // namespace

// Interface ----------------------------------------------------------------------------------------

#define DTWPT_EXPORT extern "C" __attribute__((visibility("default")))

/// Operations of dtwpt_run.
enum Operation { kAnalyse, kPool, kAdjoint, kModulusBackward };

/// The name of an instruction set that is compiled in, the best one first; null beyond the last.
DTWPT_EXPORT const char *dtwpt_instruction_set(int set) {
    return set >= 0 && set < kSetCount ? kSets[set].name : nullptr;
}

DTWPT_EXPORT int dtwpt_supported(int set) {
    return set >= 0 && set < kSetCount && kSets[set].supported();
}

/// What the loader compares with its own: the number of the interface, and the size of its structure.
DTWPT_EXPORT size_t dtwpt_interface() { return 2000 + sizeof(Plan); }

/// Run an operation; `input` are images, `coefficients` what an adjoint or a gradient is applied to.
DTWPT_EXPORT int dtwpt_run(int operation, int set, int wide, const Plan *given, int kind, int64_t batch,
                           int rows, int row_cells, const int32_t *row_index, int columns,
                           int column_cells, const int32_t *column_index, const void *input,
                           const void *coefficients, void *out, int grid_rows, int grid_columns,
                           int statistics, int threads, int poison) {
    if (batch == 0) return kDone;
    const Kernels &kernels = kSets[set].kernels[wide];
    const size_t size = wide ? 8 : 4;
    Plan plan = *given;
    if (kind != kRMax) plan.pool = 0;
    Job job{};
    job.plan = &plan;
    job.side[0] = {rows, row_cells, row_index};
    job.side[1] = {columns, column_cells, column_index};
    job.kind = kind;
    job.batch = batch;
    job.x = input;
    job.coefficients = coefficients;
    job.out = out;
    job.map_rows = plan.pool && plan.ndim == 2 ? (row_cells - plan.pool) / 2 + 1 : row_cells;
    job.map_columns = plan.pool ? (column_cells - plan.pool) / 2 + 1 : column_cells;
    const Run run{threads_for(job, kernels.lanes, threads), poison != 0};
    switch (operation) {
        case kAnalyse: return analyse(job, kernels, size, run);
        case kPool:
            return wide ? pool<double>(job, kernels, grid_rows, grid_columns, statistics, run)
                        : pool<float>(job, kernels, grid_rows, grid_columns, statistics, run);
        case kAdjoint: return adjoint(job, kernels, size, false, run);
        default: return adjoint(job, kernels, size, true, run);
    }
}
