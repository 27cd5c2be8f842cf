/* Softmax regression on a pool of models: see softmax.py.

   A model [P] is W [classes, features] row by row and then c [classes]. Rows of pixels, which are bytes worth
   `scale` each, or floats, are padded with zeros to a multiple of LANES: no loop over them has a remainder.

   Every sum has one order, whatever the processor's vectors hold: a logit is summed in LANES partial sums,
   which are added in pairs; a gradient over the samples, one after the other. Compile with
   -ffp-contract=fast: products are added with one rounding where the processor can. No row depends on others.

   The tiles (NB samples x NC classes forward, ND vectors of pixels x NC classes backward) keep all sums in
   registers: 4 x 5 forward was 10 % slower, ND = 2 as well; NC = 10 was 5 % faster but needs twice the code.
   Bytes are turned into floats twice rather than kept, which is free beside the products. Without prefetch a
   gradient on data that are in no cache takes 1.5 times as long.

   Where many vectors of pixels are all zero, as in pictures of digits, those that are not are marked, and only
   these are multiplied: that gives the same bits, for a sum does not change by 0 * w. It would where w is not
   finite, and a sum that is -0 may become 0; models with such numbers (`unmarked`) go the whole way. */

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#ifdef __AVX2__
#include <immintrin.h>
#endif

enum { LANES = 16, AHEAD = 8, LINE = 64 }; /* AHEAD: samples by which the prefetch is ahead */
#if defined(__AVX512F__)
enum { WIDE = 16, NB = 2, NC = 5, ND = 4 };
#elif defined(__AVX__)
enum { WIDE = 8, NB = 1, NC = 5, ND = 2 };
#else
enum { WIDE = 4, NB = 1, NC = 5, ND = 2 };
#endif
enum { MANY = 10, WORD = 64 }; /* classes of marked vectors at a time; vectors of a part that can be marked */
enum { PARTS = LANES / WIDE, FINE = 0, MEMORY = 1, SAMPLE = 2, ROW = 3 }; /* from FINE on: what is returned */

typedef float vec __attribute__((vector_size(4 * WIDE)));
typedef int32_t ivec __attribute__((vector_size(4 * WIDE)));
typedef uint8_t bvec __attribute__((vector_size(WIDE)));
#define INLINE static inline __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 16") /* what is indexed by a constant stays in registers */

struct samples {
    const void *pixels;
    const int64_t *labels;
    size_t count, stride, features, classes; /* stride: bytes from row to row */
    int32_t bytes;                           /* whether pixels are bytes */
    float scale;
    const uint64_t *marks; /* [count, PARTS]: bit k of part p, whether of vector k * PARTS + p a pixel is not 0; or NULL */
};

struct work {
    float *w, *z;      /* the weights with rows padded to `wide`; logits [classes, batch], padded as well */
    const char **rows; /* of the pixels of this batch, and AHEAD of the next */
    const float *bias;
    size_t wide, batch, padded;
    int marked;             /* whether it goes by marks; then w is [wide / WIDE, classes, WIDE], */
    const uint64_t **marks; /* these are those of `rows`, */
    float *turned;          /* this is what `residuals` left in z, [batch, classes], */
    uint32_t *in, *many;    /* and these say in which samples a vector is marked, [wide / WIDE, batch]; in how many */
};

INLINE vec load(const float *at) { vec v; memcpy(&v, at, sizeof v); return v; }
INLINE void store(float *at, vec v) { memcpy(at, &v, sizeof v); }
INLINE vec where(ivec mask, vec a, vec b) { return (vec)((mask & (ivec)a) | (~mask & (ivec)b)); }
static size_t padding(size_t n) { return (n + LANES - 1) / LANES * LANES; }

INLINE vec pixels(const char *row, size_t d, const int bytes)
{
    if (!bytes)
        return load((const float *)row + d);
#if defined(__AVX512F__)
    return (vec)_mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)(row + d))));
#elif defined(__AVX2__)
    return (vec)_mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(row + d))));
#else
    bvec b;
    memcpy(&b, row + d, sizeof b);
    return __builtin_convertvector(__builtin_convertvector(b, ivec), vec);
#endif
}

/* The sum of LANES numbers: lane i and i + 8, then i and i + 4, i + 2, i + 1. */
INLINE float total(const vec *part)
{
#if defined(__AVX512F__)
    __m512 v = (__m512)part[0];
    v = _mm512_add_ps(v, _mm512_shuffle_f32x4(v, v, 0x4E));
    v = _mm512_add_ps(v, _mm512_shuffle_f32x4(v, v, 0xB1));
    v = _mm512_add_ps(v, _mm512_shuffle_ps(v, v, 0x4E));
    v = _mm512_add_ps(v, _mm512_shuffle_ps(v, v, 0xB1));
    return _mm512_cvtss_f32(v);
#elif defined(__AVX2__)
    const __m256 v = (__m256)(part[0] + part[1]);
    __m128 x = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    x = _mm_add_ps(x, _mm_movehl_ps(x, x));
    return _mm_cvtss_f32(_mm_add_ss(x, _mm_movehdup_ps(x)));
#else
    float x[LANES];
    UNROLL for (int i = 0; i < LANES; i++)
        x[i] = part[i / WIDE][i % WIDE];
    UNROLL for (int i = 0; i < 8; i++)
        x[i] += x[i + 8];
    UNROLL for (int i = 0; i < 4; i++)
        x[i] += x[i + 4];
    return (x[0] + x[2]) + (x[1] + x[3]);
#endif
}

/* e^x for x <= 0 to 2 units in the last place, but not below e^-87; what is not a number stays so.
   x = n ln 2 + r with |r| <= ln 2 / 2, and the Taylor series of e^r, whose next term is below 2^-27. */
INLINE vec exponential(vec x)
{
    const float whole = 12582912.0f; /* 1.5 * 2^23: a sum with it has no fraction */
    x = where(x < -87.0f, (vec){0} - 87.0f, x);
    const vec t = x * 1.44269504f + whole, n = t - whole;
    vec r = x - n * 0.69314575f; /* the first 16 bits of ln 2, and the rest */
    r = r - n * 1.42860677e-6f;
    vec y = r * (1.0f / 5040) + 1.0f / 720;
    y = y * r + 1.0f / 120;
    y = y * r + 1.0f / 24;
    y = y * r + 1.0f / 6;
    y = y * r + 0.5f;
    y = y * r + 1.0f;
    y = y * r + 1.0f;
    return y * (vec)(((ivec)t - 0x4B400000 + 127) << 23); /* a product, so that NaN remains NaN */
}

/* The logits of nb samples from b on, for nc classes from c on. */
INLINE void forward(const int nb, const int nc, const int bytes, const struct samples *s,
                    const struct work *work, size_t b, size_t c)
{
    const size_t wide = work->wide, padded = work->padded;
    const float *w = work->w + c * wide, *bias = work->bias + c, scale = s->scale;
    const char *const *rows = (const char *const *)work->rows + b;
    float *z = work->z + c * padded + b;
    vec sum[NB][NC][PARTS] = {0};
    for (size_t d = 0; d < wide; d += LANES)
        UNROLL for (int p = 0; p < PARTS; p++) {
            vec a[NB];
            UNROLL for (int i = 0; i < nb; i++)
                a[i] = pixels(rows[i], d + p * WIDE, bytes);
            UNROLL for (int j = 0; j < nc; j++) {
                const vec x = load(w + j * wide + d + p * WIDE);
                UNROLL for (int i = 0; i < nb; i++)
                    sum[i][j][p] += a[i] * x;
            }
        }
    UNROLL for (int i = 0; i < nb; i++)
        UNROLL for (int j = 0; j < nc; j++)
            z[j * padded + i] = total(sum[i][j]) * scale + bias[j];
}

/* The gradient by the weights of nd vectors of pixels from d on, for nc classes from c on, from what
   `residuals` left in z, with the regulariser's: twice * x / (1 + x^2)^2. */
INLINE void backward(const int nd, const int nc, const int bytes, const struct samples *s,
                     const struct work *work, size_t d, size_t c, float twice, float *out)
{
    const size_t wide = work->wide, padded = work->padded, batch = work->batch, features = s->features;
    const float *w = work->w + c * wide, *z = work->z + c * padded;
    const char *const *rows = (const char *const *)work->rows;
    out += c * features;
    vec sum[NC][ND];
    UNROLL for (int i = 0; i < nc; i++)
        UNROLL for (int j = 0; j < nd; j++) {
            const vec x = load(w + i * wide + d + j * WIDE), y = x * x + 1.0f;
            sum[i][j] = twice * x / (y * y);
        }
    for (size_t b = 0; b < batch; b++) {
        vec a[ND];
        UNROLL for (int j = 0; j < nd; j++)
            a[j] = pixels(rows[b], d + j * WIDE, bytes);
        UNROLL for (int i = 0; i < nc; i++)
            UNROLL for (int j = 0; j < nd; j++)
                sum[i][j] += a[j] * z[i * padded + b];
    }
    UNROLL for (int i = 0; i < nc; i++)
        UNROLL for (int j = 0; j < nd; j++) {
            const size_t at = d + j * WIDE;
            const vec v = sum[i][j];
            float last[WIDE]; /* v itself stays in a register, for nobody takes its address */
            if (at + WIDE <= features)
                store(out + i * features + at, v);
            else if (at < features)
                store(last, v), memcpy(out + i * features + at, last, sizeof(float) * (features - at));
        }
}

/* `forward` of one sample by its marked vectors. */
INLINE void marked_forward(const int nc, const struct samples *s, const struct work *work, size_t b, size_t c)
{
    const char *row = work->rows[b];
    vec sum[MANY][PARTS] = {0};
    UNROLL for (int p = 0; p < PARTS; p++)
        for (uint64_t left = work->marks[b][p]; left; left &= left - 1) {
            const size_t k = (size_t)__builtin_ctzll(left) * PARTS + (size_t)p;
            const float *w = work->w + (k * s->classes + c) * WIDE;
            const vec a = pixels(row, k * WIDE, 1);
            UNROLL for (int j = 0; j < nc; j++)
                sum[j][p] += a * load(w + j * WIDE);
        }
    UNROLL for (int j = 0; j < nc; j++)
        work->z[(c + j) * work->padded + b] = total(sum[j]) * s->scale + work->bias[c + j];
}

/* `backward` of vector k by the samples in which it is marked. */
INLINE void marked_backward(const int nc, const struct samples *s, const struct work *work, size_t k, size_t c,
                            float twice, float *out)
{
    const float *w = work->w + (k * s->classes + c) * WIDE;
    const uint32_t *in = work->in + k * work->batch, *end = in + work->many[k];
    const size_t at = k * WIDE, here = s->features - at < WIDE ? s->features - at : WIDE;
    vec sum[MANY];
    UNROLL for (int j = 0; j < nc; j++) {
        const vec x = load(w + j * WIDE), y = x * x + 1.0f;
        sum[j] = twice * x / (y * y);
    }
    for (; in < end; in++) {
        const vec a = pixels(work->rows[*in], at, 1);
        const float *z = work->turned + *in * s->classes + c;
        UNROLL for (int j = 0; j < nc; j++)
            sum[j] += a * z[j];
    }
    UNROLL for (int j = 0; j < nc; j++) {
        float *to = out + (c + j) * s->features + at, last[WIDE];
        const vec v = sum[j];
        if (here == WIDE)
            store(to, v);
        else
            store(last, v), memcpy(to, last, sizeof(float) * here);
    }
}

/* For all classes, MANY at a time and then one by one. */
#define BY_MANY(call)                                                                                        \
    for (size_t c = 0, many; c < s->classes; c += many) {                                                    \
        many = s->classes - c < MANY ? 1 : MANY;                                                             \
        if (many == MANY) { enum { nc = MANY }; call; }                                                      \
        else { enum { nc = 1 }; call; }                                                                      \
    }

/* For all classes, NC at a time and then what is left of them: how many is a constant. */
#define BY_CLASSES(call)                                                                                     \
    for (size_t c = 0; c < s->classes; c += NC)                                                              \
        switch (s->classes - c) {                                                                            \
        case 1: { enum { nc = 1 }; call; break; }                                                            \
        case 2: { enum { nc = 2 }; call; break; }                                                            \
        case 3: { enum { nc = 3 }; call; break; }                                                            \
        case 4: { enum { nc = 4 }; call; break; }                                                            \
        default: { enum { nc = NC }; call; }                                                                 \
        }

/* With the kind of the pixels as a constant. */
#define BY_KIND(call)                                                                                        \
    if (s->bytes) { enum { bytes = 1 }; call; }                                                              \
    else { enum { bytes = 0 }; call; }

INLINE void ahead(const struct samples *s, const struct work *work, size_t k)
{
    for (size_t line = 0; line < s->stride; line += LINE)
        __builtin_prefetch(work->rows[k] + line);
}

static void marked_logits(const struct samples *s, const struct work *work)
{
    for (size_t b = 0; b < work->batch; b++) {
        ahead(s, work, b + AHEAD);
        __builtin_prefetch(work->marks[b + AHEAD]);
        BY_MANY(marked_forward(nc, s, work, b, c))
    }
}

/* All logits of a batch, and a prefetch of what comes next. */
INLINE void logits(const int bytes, const struct samples *s, const struct work *work)
{
    if (work->marked) {
        marked_logits(s, work);
        return;
    }
    size_t b = 0;
    for (; b + NB <= work->batch; b += NB) {
        for (size_t k = b + AHEAD; k < b + AHEAD + NB; k++)
            ahead(s, work, k);
        BY_CLASSES(forward(NB, nc, bytes, s, work, b, c))
    }
    for (; b < work->batch; b++)
        BY_CLASSES(forward(1, nc, bytes, s, work, b, c))
}

/* z[c * padded + b] <- e^(z - max over c); the vectors of max and sum over c go to `most` and `sum`. */
INLINE void exponentials(float *z, size_t padded, size_t classes, vec *most, vec *sum)
{
    *most = load(z), *sum = (vec){0};
    for (size_t c = 1; c < classes; c++) {
        const vec v = load(z + c * padded);
        *most = where(v > *most, v, *most);
    }
    for (size_t c = 0; c < classes; c++) {
        const vec e = exponential(load(z + c * padded) - *most);
        *sum += e;
        store(z + c * padded, e);
    }
}

/* Logits to (softmax - target) / batch, times the value of a pixel; and the gradient by c. */
static void residuals(const struct samples *s, const struct work *work, const int64_t *index, float twice,
                      float *out)
{
    const size_t padded = work->padded, batch = work->batch;
    const float share = 1.0f / (float)batch, *bias = work->bias;
    float *z = work->z;
    for (size_t g = 0; g < padded; g += WIDE) {
        vec most, sum;
        exponentials(z + g, padded, s->classes, &most, &sum);
        const vec over = share / sum;
        for (size_t c = 0; c < s->classes; c++)
            store(z + c * padded + g, load(z + c * padded + g) * over);
    }
    for (size_t b = 0; b < batch; b++)
        z[(size_t)s->labels[index[b]] * padded + b] -= share;
    for (size_t c = 0; c < s->classes; c++) {
        vec sum[PARTS] = {0};
        memset(z + c * padded + batch, 0, sizeof(float) * (padded - batch));
        for (size_t g = 0; g < padded; g += LANES)
            UNROLL for (int p = 0; p < PARTS; p++) {
                float *at = z + c * padded + g + p * WIDE;
                const vec v = load(at);
                sum[p] += v;
                store(at, v * s->scale);
            }
        const float y = bias[c] * bias[c] + 1.0f;
        out[c] = total(sum) + twice * bias[c] / (y * y);
    }
}

/* Room for the work on minibatches of that size; 0 if there is none. */
static int opened(struct work *work, const struct samples *s, size_t batch)
{
    work->wide = padding(s->features), work->batch = batch, work->padded = padding(batch);
    const size_t classes = s->classes, vectors = work->wide / WIDE;
    work->w = aligned_alloc(LINE, sizeof(float) * classes * (work->wide + work->padded));
    work->rows = malloc(sizeof(char *) * (batch + AHEAD + NB));
    work->marks = malloc(sizeof(uint64_t *) * (batch + AHEAD + NB));
    work->turned = malloc(sizeof(float) * classes * batch);
    work->many = malloc(sizeof(uint32_t) * vectors * (batch + 1));
    if (!work->w || !work->rows || !work->marks || !work->turned || !work->many)
        return 0;
    work->z = work->w + classes * work->wide, work->in = work->many + vectors;
    memset(work->z, 0, sizeof(float) * classes * work->padded);
    return 1;
}

static void closed(struct work *work)
{
    free(work->w), free(work->rows), free(work->marks), free(work->turned), free(work->many);
}

/* The k-th sample of this batch, and of what is fetched ahead, is that one. */
INLINE void aimed(struct work *work, size_t k, const struct samples *s, size_t sample)
{
    work->rows[k] = (const char *)s->pixels + sample * s->stride;
    work->marks[k] = s->marks ? s->marks + sample * PARTS : NULL;
}

/* Numbers with which marked vectors are not enough: what is no number, or above 10^6, of which a product may be
   none; -0, and what is below 0 but so near that the regulariser may make -0 of it. */
INLINE ivec refused(vec x)
{
    return (((ivec)x & INT32_MAX) > 0x49742400) | ((ivec)x < INT32_MIN + 0x00800000);
}

/* Lay the weights out by vectors of pixels; whether marked vectors are enough for this model. */
static int laid(struct work *work, const float *x, const struct samples *s, float twice)
{
    ivec found = {0};
    for (size_t c = 0; c <= s->classes; c++) { /* the last of these are the biases */
        const size_t count = c < s->classes ? s->features : s->classes;
        const float *from = x + c * s->features;
        for (size_t d = 0; d < count; d += WIDE) {
            float last[WIDE] = {0};
            if (count - d < WIDE)
                memcpy(last, from + d, sizeof(float) * (count - d));
            const vec v = load(count - d < WIDE ? last : from + d);
            found |= refused(v);
            if (c < s->classes)
                store(work->w + (d / WIDE * s->classes + c) * WIDE, v);
        }
    }
    int any = 0;
    for (int i = 0; i < WIDE; i++)
        any |= found[i];
    return !any && twice >= 1e-6f;
}

/* The weights with rows padded to `wide`, or, where marked vectors are enough, by vectors. */
static void unpacked(struct work *work, const float *x, const struct samples *s, float twice)
{
    work->bias = x + s->classes * s->features;
    work->marked = s->marks && laid(work, x, s, twice);
    for (size_t c = 0; c < s->classes && !work->marked; c++) {
        float *w = work->w + c * work->wide;
        memcpy(w, x + c * s->features, sizeof(float) * s->features);
        memset(w + s->features, 0, sizeof(float) * (work->wide - s->features));
    }
}

/* What `backward` is, by the marks. */
static void marked_gradient(const struct samples *s, const struct work *work, float twice, float *out)
{
    const size_t batch = work->batch, classes = s->classes, vectors = work->wide / WIDE;
    memset(work->many, 0, sizeof(uint32_t) * vectors);
    for (size_t b = 0; b < batch; b++) {
        for (size_t c = 0; c < classes; c++)
            work->turned[b * classes + c] = work->z[c * work->padded + b];
        for (size_t p = 0; p < PARTS; p++)
            for (uint64_t left = work->marks[b][p]; left; left &= left - 1) {
                const size_t k = (size_t)__builtin_ctzll(left) * PARTS + p;
                work->in[k * batch + work->many[k]++] = (uint32_t)b;
            }
    }
    for (size_t k = 0; k * WIDE < s->features; k++)
        BY_MANY(marked_backward(nc, s, work, k, c, twice, out))
}

INLINE void gradient(const int bytes, const struct samples *s, const struct work *work, const int64_t *index,
                     float twice, float *out)
{
    logits(bytes, s, work);
    residuals(s, work, index, twice, out + s->classes * s->features);
    if (work->marked) {
        marked_gradient(s, work, twice, out);
        return;
    }
    size_t d = 0;
    for (; d + ND * WIDE <= work->wide; d += ND * WIDE)
        BY_CLASSES(backward(ND, nc, bytes, s, work, d, c, twice, out))
    for (; d < work->wide; d += WIDE)
        BY_CLASSES(backward(1, nc, bytes, s, work, d, c, twice, out))
}

/* out[to[r]] <- the gradient at pool[from[r]] on the samples index[r * batch ...], for m models. No row of
   `pool` that is yet to be read may be written: `out` may be `pool`, with other rows. twice: 2 * reg. */
int softmax_gradients(const struct samples *s, const float *pool, size_t pool_rows, const int64_t *from,
                      float *out, size_t out_rows, const int64_t *to, size_t m, const int64_t *index,
                      size_t batch, float twice)
{
    const size_t size = s->classes * (s->features + 1);
    for (size_t r = 0; r < m; r++)
        if ((uint64_t)from[r] >= pool_rows || (uint64_t)to[r] >= out_rows)
            return ROW;
    for (size_t k = 0; k < m * batch; k++)
        if ((uint64_t)index[k] >= s->count)
            return SAMPLE;
    struct work work;
    const int enough = opened(&work, s, batch);
    for (size_t r = 0; enough && r < m; r++) {
        const int64_t *mine = index + r * batch;
        const size_t left = (m - r) * batch;
        for (size_t k = 0; k < batch + AHEAD + NB; k++)
            aimed(&work, k, s, (size_t)mine[k < left ? k : left - 1]);
        unpacked(&work, pool + (size_t)from[r] * size, s, twice);
        BY_KIND(gradient(bytes, s, &work, mine, twice, out + (size_t)to[r] * size))
    }
    closed(&work);
    return enough ? FINE : MEMORY;
}

/* The mean cross entropy of a model on all samples, or the sum with these weights if there are any; and for
   how many their label has the largest logit. */
int softmax_scores(const struct samples *s, const float *x, const double *weights, double *entropy,
                   int64_t *right)
{
    struct work work;
    const int enough = opened(&work, s, LANES);
    if (enough)
        unpacked(&work, x, s, 1.0f);
    double sum = 0;
    int64_t hits = 0;
    for (size_t at = 0; enough && at < s->count; at += LANES) {
        work.batch = s->count - at < LANES ? s->count - at : LANES;
        for (size_t k = 0; k < LANES + AHEAD + NB; k++)
            aimed(&work, k, s, at + k < s->count ? at + k : s->count - 1);
        BY_KIND(logits(bytes, s, &work))
        float own[LANES], most[LANES], all[LANES];
        for (size_t b = 0; b < work.batch; b++) {
            size_t best = 0;
            for (size_t c = 1; c < s->classes; c++)
                if (work.z[c * LANES + b] > work.z[best * LANES + b])
                    best = c;
            hits += best == (size_t)s->labels[at + b];
            own[b] = work.z[(size_t)s->labels[at + b] * LANES + b];
        }
        for (size_t g = 0; g < LANES; g += WIDE) {
            vec largest, whole;
            exponentials(work.z + g, LANES, s->classes, &largest, &whole);
            store(most + g, largest);
            store(all + g, whole);
        }
        for (size_t b = 0; b < work.batch; b++) {
            const double each = log((double)all[b]) + ((double)most[b] - (double)own[b]);
            sum += weights ? weights[at + b] * each : each;
        }
    }
    *entropy = weights ? sum : sum / (double)s->count;
    *right = hits;
    closed(&work);
    return enough ? FINE : MEMORY;
}

/* Marks of all samples [count, PARTS]; 0 if they cannot be marked, or too many would be for it to be worth it. */
int softmax_marks(const struct samples *s, uint64_t *marks)
{
    const size_t vectors = padding(s->features) / WIDE;
    size_t found = 0;
    if (!s->bytes || vectors > WORD * PARTS)
        return 0;
    memset(marks, 0, sizeof(uint64_t) * s->count * PARTS);
    for (size_t i = 0; i < s->count; i++)
        for (size_t k = 0; k < vectors; k++) {
            const char *at = (const char *)s->pixels + i * s->stride + k * WIDE;
            int any = 0;
            for (int d = 0; d < WIDE; d++)
                any |= at[d];
            marks[i * PARTS + k % PARTS] |= (uint64_t)(any != 0) << k / PARTS;
            found += any != 0;
        }
    return 4 * found <= 3 * s->count * vectors;
}
