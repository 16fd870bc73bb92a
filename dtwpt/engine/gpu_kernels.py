"""Triton kernels of the analysis of images and of its adjoint.

Along an axis, a filter bank at the cells of a tile is a banded matrix, so that a tile of
coefficients is ``V @ pixels @ H``: two products for the tensor cores, with no store between them.
The matrices come from :mod:`dtwpt.engine.gpu_tables`, with the border of the image folded in.

Products are of float16, with sums in float32. A power of two takes the largest value of what is
multiplied to a fixed range, so that no range of values overflows or vanishes. With ``TERMS = 2``
each factor is a sum of two float16, 22 bits, and three products are taken: the error is that of
float32. With ``TERMS = 1`` it is that of tf32. With ``TERMS = 0``, for images of 16 bits, pixels
are multiplied as they are, with no scale, and the second product is of bfloat16.

Two kinds of products are avoided, which Triton 3.6 compiled to wrong results on Hopper, though
they are right in the interpreter: those of blocks of 64 rows and 16 columns of pixels (with 64
columns one access was even illegal), and those of 8 warps with 64 rows, where two groups of four
warps share the columns. Blocks have 32 rows at most, but for chunks of 32 columns, which are right
with 64, and for the adjoint with one term.
"""

import triton
import triton.language as tl

# Each of the two matrices is multiplied by 2**4, to keep the small terms of its entries.
_UNSCALE = tl.constexpr(2.0**-8)

# Threads of a program, most often.
_LANES = tl.constexpr(128)


@triton.jit
def _scale(largest, top: tl.constexpr):
    """Return the power of two that takes a maximum below 2**top, and its inverse."""
    exponent = largest.to(tl.int32, bitcast=True) >> 23
    field = tl.minimum(253 + top - exponent, 253)  # biased; the inverse must not be subnormal
    return (field << 23).to(tl.float32, bitcast=True), ((254 - field) << 23).to(
        tl.float32, bitcast=True
    )


@triton.jit
def _low(x, high):
    return (x - high.to(tl.float32)).to(tl.float16)


@triton.jit
def _split(x, scale, dtype: tl.constexpr, TERMS: tl.constexpr):
    """Return the terms of what is multiplied, as a narrow type; the second one is for two TERMS."""
    if TERMS > 0:
        x = x.to(tl.float32) * scale
    high = x.to(dtype)
    low = high
    if TERMS == 2:
        low = _low(x, high)
    return high, low


@triton.jit
def _product(a, a_low, b, b_low, accumulator, TERMS: tl.constexpr):
    if TERMS == 2:
        accumulator = tl.dot(a_low, b, accumulator)
        accumulator = tl.dot(a, b_low, accumulator)
    return tl.dot(a, b, accumulator)


@triton.jit
def _pixels(x, rows, columns, H, W, some, CUT: tl.constexpr, READ: tl.constexpr):
    """Load pixels, with CUT only ``some`` columns.

    READ says how positions outside of the image are taken.
    """
    if READ == "wrapped":
        rows = (rows % H + H) % H
        columns = (columns % W + W) % W
    at = x + rows[:, None] * W + columns[None, :]
    if READ == "masked":
        inside = ((rows >= 0) & (rows < H))[:, None] & ((columns >= 0) & (columns < W))[None, :]
        if CUT:
            inside = inside & some
        return tl.load(at, mask=inside, other=0.0)
    if CUT:
        return tl.load(at, mask=some, other=0.0)
    return tl.load(at)


@triton.jit
def _blocks(
    image,
    r0,
    c0,
    H,
    W,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    READ: tl.constexpr,
):
    """Load a window of pixels: the pieces of the first chunk of columns, then of the next ones."""
    blocks = ()
    for chunk in tl.static_range(len(COLUMNS)):
        columns = c0 + COLUMNS[chunk][0] + tl.arange(0, COLUMNS[chunk][1])
        for piece in tl.static_range(len(ROWS)):
            rows = r0 + ROWS[piece][0] + tl.arange(0, ROWS[piece][1])
            blocks = blocks + (_pixels(image, rows, columns, H, W, rows, False, READ),)
    return blocks


@triton.jit
def _most(x):
    """Return _LANES largest magnitudes: in any order, so that each thread takes its own."""
    x = tl.abs(x.to(tl.float32))
    return tl.max(tl.reshape(x, (x.numel // _LANES, _LANES), can_reorder=True), 0)


@triton.jit
def _parts(accumulator, M: tl.constexpr, N: tl.constexpr):
    """Separate the trees, which alternate in rows eight at a time and come in halves of columns.

    This order makes the four values of a cell those of one thread.
    """
    trees = tl.reshape(accumulator, (M // 16, 2, 8, 2, N // 2)).permute(0, 2, 4, 3, 1)
    first, second = tl.split(trees)
    aa, ab = tl.split(first)
    ba, bb = tl.split(second)
    return aa, ab, ba, bb


@triton.jit
def _write(
    out,
    size,
    channel,
    kept,
    cells,
    nh,
    nw,
    maps,
    real,
    imaginary,
    unit,
    peak,
    KIND: tl.constexpr,
    WIDE: tl.constexpr,
):
    """Write coefficients of one sign as KIND says; return the running maximum of the gradient.

    For "direction", ``size`` is the gradient of the modulus. For "complex", cells and kept are
    those of both parts along rows. WIDE says that squares of coefficients can be out of range.
    """
    at = channel * (nh * nw) + cells
    dtype = out.dtype.element_ty
    back = unit
    if WIDE and KIND == "modulus":
        shrink, back = _scale(tl.maximum(tl.abs(real), tl.abs(imaginary)), 0)
        real *= shrink
        imaginary *= shrink
    if KIND == "modulus":
        tl.store(out + at, (tl.sqrt(real * real + imaginary * imaginary) * back).to(dtype), kept)
    elif KIND == "real":
        tl.store(out + at, (real * unit).to(dtype), kept)
    elif KIND == "parts":
        tl.store(out + at, real * unit, kept)
        tl.store(out + maps + at, imaginary * unit, kept)
    elif KIND == "complex":
        # Offsets are of both parts, one after the other along rows: 16 bytes a thread.
        pairs = tl.join(real * unit, imaginary * unit)
        pairs = tl.reshape(pairs, (real.shape[0], real.shape[1], 2 * real.shape[2]))
        tl.store(out + 2 * channel * (nh * nw) + cells, pairs, kept)
    else:  # the gradient of the modulus times the direction of the coefficient
        power = real * real + imaginary * imaginary
        # No power in between: sums of products of float16 are zero or above 2**-48.
        size = size.to(tl.float32)
        over = tl.where(power > 0, size * tl.rsqrt(tl.maximum(power, 1e-36)), 0.0)
        tl.store(out + at, (real * over).to(dtype), kept)
        tl.store(out + maps + at, (imaginary * over).to(dtype), kept)
        peak = tl.maximum(peak, tl.max(tl.abs(size)))
    return peak


@triton.jit(do_not_specialize=["B", "per", "H", "units", "nh", "cell_units", "K", "tiles"])
def analyse_kernel(
    x,
    out,
    g,
    maxima,
    vertical,
    horizontal,
    row_start,
    row_table,
    column_start,
    column_table,
    place,
    B,
    per,
    H,
    units,
    nh,
    cell_units,
    K,
    tiles,
    CELLS_V: tl.constexpr,
    CELLS_H: tl.constexpr,
    P: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    WINDOW_V: tl.constexpr,
    WINDOW_H: tl.constexpr,
    SPAN: tl.constexpr,
    ALIGN: tl.constexpr,
    READ: tl.constexpr,
    ONCE: tl.constexpr,
    EVEN: tl.constexpr,
    TERMS: tl.constexpr,
    KIND: tl.constexpr,
    ALL: tl.constexpr,
):
    """Analyse one tile of cells of ``per`` images.

    ROWS and COLUMNS cut the window of pixels into pieces (first, length) whose lengths are powers
    of two, WINDOW_V rows and WINDOW_H columns in all; SPAN is a power of two that is no less than
    WINDOW_H. ``vertical`` and ``horizontal`` hold (table, TERMS or 1, ...) matrices. Columns start
    at multiples of ALIGN, and rows of coefficients have a multiple of EVEN.
    """
    M: tl.constexpr = 2 * P * CELLS_V
    N: tl.constexpr = 2 * P * CELLS_H
    FIRST: tl.constexpr = x.dtype.element_ty if TERMS == 0 else tl.float16
    SECOND: tl.constexpr = tl.bfloat16 if TERMS == 0 else tl.float16
    WIDE: tl.constexpr = TERMS == 0 and x.dtype.element_ty == tl.bfloat16
    W = units * ALIGN  # so that the compiler knows of the alignment
    nw = cell_units * EVEN
    tile_r = tl.program_id(0) // tiles
    tile_c = tl.program_id(0) % tiles
    r0 = tl.load(row_start + tile_r)
    c0 = tl.load(column_start + tile_c) * ALIGN
    v = vertical + tl.load(row_table + tile_r) * (max(TERMS, 1) * M * WINDOW_V)
    h = horizontal + tl.load(column_table + tile_c) * (max(TERMS, 1) * N * WINDOW_H)

    # The matrices stay in shared memory across images.
    m = tl.arange(0, M)
    n = tl.arange(0, N)
    vs = ()
    v_lows = ()
    for piece in tl.static_range(len(ROWS)):
        k = ROWS[piece][0] + tl.arange(0, ROWS[piece][1])
        at = v + m[:, None] * WINDOW_V + k[None, :]
        vs = vs + (tl.load(at),)
        if TERMS == 2:
            v_lows = v_lows + (tl.load(at + M * WINDOW_V),)
        else:
            v_lows = v_lows + (0,)
    hs = ()
    h_lows = ()
    for chunk in tl.static_range(len(COLUMNS)):
        k = COLUMNS[chunk][0] + tl.arange(0, COLUMNS[chunk][1])
        at = h + k[:, None] * N + n[None, :]
        hs = hs + (tl.load(at),)
        if TERMS == 2:
            h_lows = h_lows + (tl.load(at + N * WINDOW_H),)
        else:
            h_lows = h_lows + (0,)

    # Cells and channels of what one thread combines: vertical packet and cell in q and r.
    q = tl.arange(0, M // 16)[:, None, None] * 8 + tl.arange(0, 8)[None, :, None]
    i, kr = q // CELLS_V, tile_r * CELLS_V + q % CELLS_V
    if KIND == "complex":
        s = tl.arange(0, N)[None, None, :]
        j, kc = s // (2 * CELLS_H), 2 * tile_c * CELLS_H + s % (2 * CELLS_H)
        cells = 2 * kr * nw + kc
        kept = (kr < nh) & (kc < 2 * nw)
    else:
        s = tl.arange(0, N // 2)[None, None, :]
        j, kc = s // CELLS_H, tile_c * CELLS_H + s % CELLS_H
        cells = kr * nw + kc
        kept = (kr < nh) & (kc < nw)
    channel = i * P + j
    kept_plus, plus = kept, channel
    kept_minus, minus = kept, channel + P * P
    if not ALL:
        plus = tl.load(place + plus)
        minus = tl.load(place + minus)
        kept_plus = kept & (plus >= 0)
        kept_minus = kept & (minus >= 0)

    # Of 64 bits.
    area = tl.full((), 1, tl.int64) * H * W
    maps = tl.full((), 1, tl.int64) * K * nh * nw
    first = tl.program_id(1) * per
    last = tl.minimum(first + per, B) - 1
    for b in tl.range(first, last + 1, disable_licm=True):
        image = x + b * area
        scale = 1.0
        unit = 1.0
        highs = ()
        lows = ()
        if ONCE:
            blocks = _blocks(image, r0, c0, H, W, ROWS, COLUMNS, READ)
            if TERMS > 0:
                most = tl.zeros((_LANES,), tl.float32)
                for block in tl.static_range(len(ROWS) * len(COLUMNS)):
                    most = tl.maximum(most, _most(blocks[block]))
                scale, unit = _scale(tl.max(most), 8)
            # All goes to shared memory before the first product, with one barrier.
            for block in tl.static_range(len(ROWS) * len(COLUMNS)):
                high, low = _split(blocks[block], scale, FIRST, TERMS)
                highs = highs + (high,)
                lows = lows + (low,)
        elif TERMS > 0:
            columns = c0 + tl.arange(0, SPAN)
            some = (tl.arange(0, SPAN) < WINDOW_H)[None, :]
            most = tl.zeros((16, SPAN), tl.float32)
            for step in tl.range(0, WINDOW_V // 16, disable_licm=True):
                rows = r0 + step * 16 + tl.arange(0, 16)
                pixels = _pixels(image, rows, columns, H, W, some, WINDOW_H < SPAN, READ)
                most = tl.maximum(most, tl.abs(pixels.to(tl.float32)))
            scale, unit = _scale(tl.max(most), 8)
        there = g + b * maps
        size_plus = 0.0
        size_minus = 0.0
        accumulator = tl.zeros((M, N), tl.float32)
        for chunk in tl.static_range(len(COLUMNS)):
            columns = c0 + COLUMNS[chunk][0] + tl.arange(0, COLUMNS[chunk][1])
            y = tl.zeros((M, tl.constexpr(COLUMNS[chunk][1])), tl.float32)
            for piece in tl.static_range(len(ROWS)):
                if ONCE:
                    high = highs[chunk * len(ROWS) + piece]
                    low = lows[chunk * len(ROWS) + piece]
                else:  # from the cache
                    rows = r0 + ROWS[piece][0] + tl.arange(0, ROWS[piece][1])
                    pixels = _pixels(image, rows, columns, H, W, rows, False, READ)
                    high, low = _split(pixels, scale, FIRST, TERMS)
                y = _product(vs[piece], v_lows[piece], high, low, y, TERMS)
            if KIND == "direction" and chunk == len(COLUMNS) - 1:
                # From here on they take no registers from pixels, and arrive before their use.
                size_plus = tl.load(there + plus * (nh * nw) + cells, kept_plus, other=0.0)
                size_minus = tl.load(there + minus * (nh * nw) + cells, kept_minus, other=0.0)
            high, low = _split(y, 1.0, SECOND, TERMS)
            accumulator = _product(high, low, hs[chunk], h_lows[chunk], accumulator, TERMS)
        if TERMS > 0:
            accumulator *= _UNSCALE
        aa, ab, ba, bb = _parts(accumulator, M, N)
        here = out + b * maps
        if KIND != "modulus" and KIND != "real":  # two numbers each
            here += b * maps
        peak = 0.0
        peak = _write(
            here,
            size_plus,
            plus,
            kept_plus,
            cells,
            nh,
            nw,
            maps,
            aa - bb,
            ab + ba,
            unit,
            peak,
            KIND,
            WIDE,
        )
        peak = _write(
            here,
            size_minus,
            minus,
            kept_minus,
            cells,
            nh,
            nw,
            maps,
            aa + bb,
            ba - ab,
            unit,
            peak,
            KIND,
            WIDE,
        )
        if KIND == "direction":
            # Maximum of bit patterns, whose order is that of non-negative numbers.
            tl.atomic_max(maxima + b, peak.to(tl.int32, bitcast=True), sem="relaxed")


@triton.jit(do_not_specialize=["size"])
def maxima_kernel(c, maxima, size, BLOCK: tl.constexpr, STEPS: tl.constexpr):
    """Take the largest magnitude of each row of (B, size), as the bits of a float32."""
    b = tl.program_id(1)
    row = c + b * (tl.full((), 1, tl.int64) * size)
    start = tl.program_id(0) * (BLOCK * STEPS)
    largest = tl.zeros((BLOCK,), tl.float32)
    for step in tl.static_range(STEPS):
        at = start + step * BLOCK + tl.arange(0, BLOCK)
        value = tl.load(row + at, at < size, other=0.0).to(tl.float32)
        largest = tl.maximum(largest, tl.abs(value))
    peak = tl.max(largest)
    tl.atomic_max(maxima + b, peak.to(tl.int32, bitcast=True), sem="relaxed")


@triton.jit
def _plane(
    c, channel, row, columns, both, maps, nh, nw, scale, KIND: tl.constexpr, FULL: tl.constexpr
):
    """Load real and imaginary parts at (packets and cells in rows, cells in columns)."""
    at = (channel * (nh * nw) + row * nw)[:, None] + columns[None, :]
    kept = (channel >= 0)[:, None] & (columns < nw)[None, :]
    if KIND == "complex":
        # 16 bytes a thread, of both parts.
        size: tl.constexpr = columns.shape[0]
        pairs = (channel * (2 * nh * nw) + row * (2 * nw))[:, None] + both[None, :]
        if FULL:
            pairs = tl.load(c + pairs)
        else:
            inside = (channel >= 0)[:, None] & (both < 2 * nw)[None, :]
            pairs = tl.load(c + pairs, mask=inside, other=0.0)
        real, imaginary = tl.split(tl.reshape(pairs, (channel.shape[0], size, 2)))
    elif FULL:
        real = tl.load(c + at)
        imaginary = real
        if KIND == "parts":
            imaginary = tl.load(c + maps + at)
    else:
        real = tl.load(c + at, mask=kept, other=0.0)
        imaginary = real
        if KIND == "parts":
            imaginary = tl.load(c + maps + at, mask=kept, other=0.0)
    return real.to(tl.float32) * scale, imaginary.to(tl.float32) * scale


@triton.jit(do_not_specialize=["B", "per", "H", "units", "nh", "cell_units", "K", "tiles"])
def adjoint_kernel(
    c,
    out,
    maxima,
    vertical,
    horizontal,
    row_cells,
    row_table,
    column_cells,
    column_table,
    place,
    B,
    per,
    H,
    units,
    nh,
    cell_units,
    K,
    tiles,
    SIDE_V: tl.constexpr,
    SIDE_H: tl.constexpr,
    P: tl.constexpr,
    ROWS: tl.constexpr,
    CELLS_V: tl.constexpr,
    CELLS_H: tl.constexpr,
    ALIGN: tl.constexpr,
    EVEN: tl.constexpr,
    DIRECT: tl.constexpr,
    NARROW: tl.constexpr,
    TERMS: tl.constexpr,
    KIND: tl.constexpr,
    ALL: tl.constexpr,
):
    """Compute one tile of SIDE_V x SIDE_H pixels of ``per`` images from the cells that see it.

    ``vertical`` holds (table, term, tree, SIDE_V, CELLS_V * P) matrices, packets innermost, and
    ``horizontal`` (table, term, packet, tree, CELLS_H, SIDE_H). ROWS cuts CELLS_V * P into pieces.
    With DIRECT the cells of a tile are CELLS_H columns from a multiple of ALIGN on, which the
    number of columns is one of, too, and with NARROW there are fewer of these; or else a table
    lists them. EVEN divides the width of images.
    """
    Q: tl.constexpr = CELLS_V * P
    FULL: tl.constexpr = ALL and not NARROW
    W = units * EVEN
    nw = cell_units * ALIGN
    tile_r = tl.program_id(0) // tiles
    tile_c = tl.program_id(0) % tiles
    v = vertical + tl.load(row_table + tile_r) * (TERMS * 2 * SIDE_V * Q)
    h = horizontal + tl.load(column_table + tile_c) * (TERMS * P * 2 * CELLS_H * SIDE_H)
    side = tl.arange(0, SIDE_V)
    v_as = ()
    v_bs = ()
    v_a_lows = ()
    v_b_lows = ()
    for piece in tl.static_range(len(ROWS)):
        k = ROWS[piece][0] + tl.arange(0, ROWS[piece][1])
        at = v + side[:, None] * Q + k[None, :]
        v_as = v_as + (tl.load(at),)
        v_bs = v_bs + (tl.load(at + SIDE_V * Q),)
        if TERMS == 2:
            v_a_lows = v_a_lows + (tl.load(at + 2 * SIDE_V * Q),)
            v_b_lows = v_b_lows + (tl.load(at + 3 * SIDE_V * Q),)
        else:
            v_a_lows = v_a_lows + (0,)
            v_b_lows = v_b_lows + (0,)
    each = tl.arange(0, 2 * CELLS_H)
    if DIRECT:
        start = tl.load(column_cells + tile_c * CELLS_H) // ALIGN * ALIGN
        columns = start + tl.arange(0, CELLS_H)
        both = 2 * start + each
    else:
        columns = tl.load(column_cells + tile_c * CELLS_H + tl.arange(0, CELLS_H))
        both = 2 * tl.load(column_cells + tile_c * CELLS_H + each // 2) + each % 2
    at_h = tl.arange(0, CELLS_H)[:, None] * SIDE_H + tl.arange(0, SIDE_H)[None, :]

    # Of 64 bits.
    area = tl.full((), 1, tl.int64) * H * W
    maps = tl.full((), 1, tl.int64) * K * nh * nw
    first = tl.program_id(1) * per
    for b in tl.range(first, tl.minimum(first + per, B), disable_licm=True):
        scale, unit = _scale(tl.load(maxima + b).to(tl.float32, bitcast=True), 4)
        image = c + b * maps
        if KIND != "real":  # two numbers each
            image += b * maps
        accumulator = tl.zeros((SIDE_V, SIDE_H), tl.float32)
        for j in tl.range(0, P, disable_licm=True):
            za = tl.zeros((SIDE_V, CELLS_H), tl.float32)
            zb = tl.zeros((SIDE_V, CELLS_H), tl.float32)
            for piece in tl.static_range(len(ROWS)):
                k = ROWS[piece][0] + tl.arange(0, ROWS[piece][1])
                row = tl.load(row_cells + tile_r * CELLS_V + k // P)
                plus = (k % P) * P + j
                minus = plus + P * P
                if not ALL:
                    plus = tl.load(place + plus)
                    minus = tl.load(place + minus)
                re, im = _plane(image, plus, row, columns, both, maps, nh, nw, scale, KIND, FULL)
                re_minus, im_minus = _plane(
                    image, minus, row, columns, both, maps, nh, nw, scale, KIND, FULL
                )
                va, va_low = v_as[piece], v_a_lows[piece]
                vb, vb_low = v_bs[piece], v_b_lows[piece]
                t = re + re_minus
                high = t.to(tl.float16)
                za = _product(va, va_low, high, _low(t, high), za, TERMS)
                t = re_minus - re
                high = t.to(tl.float16)
                zb = _product(vb, vb_low, high, _low(t, high), zb, TERMS)
                if KIND != "real":
                    t = im + im_minus
                    high = t.to(tl.float16)
                    za = _product(vb, vb_low, high, _low(t, high), za, TERMS)
                    t = im - im_minus
                    high = t.to(tl.float16)
                    zb = _product(va, va_low, high, _low(t, high), zb, TERMS)
            lows = h + P * 2 * CELLS_H * SIDE_H
            of_j = at_h + j * (2 * CELLS_H * SIDE_H)
            ha = tl.load(h + of_j)
            hb = tl.load(h + of_j + CELLS_H * SIDE_H)
            ha_low = ha
            hb_low = hb
            if TERMS == 2:
                ha_low = tl.load(lows + of_j)
                hb_low = tl.load(lows + of_j + CELLS_H * SIDE_H)
            high = za.to(tl.float16)
            accumulator = _product(high, _low(za, high), ha, ha_low, accumulator, TERMS)
            high = zb.to(tl.float16)
            accumulator = _product(high, _low(zb, high), hb, hb_low, accumulator, TERMS)
        row = tile_r * SIDE_V + tl.arange(0, SIDE_V)
        line = tile_c * SIDE_H + tl.arange(0, SIDE_H)
        here = out + b * area
        tl.store(
            here + row[:, None] * W + line[None, :],
            (accumulator * _UNSCALE * unit).to(out.dtype.element_ty),
            (row < H)[:, None] & (line < W)[None, :],
        )
