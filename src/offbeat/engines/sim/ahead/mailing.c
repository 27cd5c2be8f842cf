/* Agents that mail one another, or read each other's registers: which event comes when, and what is made at
   each, from numbers alone. See mailing.py and loop.py, which says what an agent makes where that is not known.

   Agents are known to one another by their place among those whom they see (`around`); what may happen to one
   is 0: it begins, 1: its gradient is there, or a letter: 2 + 2 (place KINDS + type) + whether it is read from
   a register. What becomes of a place (a state, or a question) when that happens, or is the answer, is a node:
   what a handler makes (0, 1, ...), a question (-2, -3, ...), or not known yet (-1). Compile with
   -ffp-contract=off, as numbers are what handlers would make of them; -DKINDS: so many types of letters at most;
   -DCHUNK: so many delays are drawn at once. */

#include <math.h>
#include <setjmp.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { BEGIN, COMPUTED, LETTERS };          /* what happens to an agent */
enum { DELIVERY = 1, GRADIENT = 3 };        /* in which order at one instant, as in the simulator */
enum { COMPUTES, SENDS };                   /* delays */
enum { ENDED, PAUSED, GIVEN_UP };           /* what `run` says */
enum { NONE = 1 };                          /* the value that is zero */
enum { WAVES = 1000000 };                   /* so many events in a row at one instant: the clock stands */

typedef int64_t Int;
typedef struct { Int n, room, *at; } Ints;
typedef struct { Int n, room; double *at; } Floats;
typedef struct { Int n, room; char *at; } Bytes;

/* Sent, or published: to whom, and what. */
typedef struct Letter {
    struct Letter *before, *after, *next; /* of all that there are; the next that waits for the link */
    Int sender, uses, kind, version, published, receivers, vectors, numbers, drawn;
    double start, *number;
    Int *to, *value;
    char *missed; /* who loses it, once that is drawn */
} Letter;

typedef struct { Letter *letter; Int place; double came; } Unread; /* its sender's place, when it came */
typedef struct { Int n, room; Unread *at; } Unreads;
typedef struct { Int n, room; Letter **at; } Letters;

/* `there`: who has the letter then, as indices of its receivers; NULL: all. */
typedef struct {
    double time, start;
    Int wave, priority, number, agent, frees, many, *there;
    Letter *letter;
} Event;
typedef struct { Int n, room; Event *at; } Events;

typedef struct {
    Int place, version, steps, busy, called; /* called: its handlers are */
    Ints own, stamps; /* values of its state; versions of others: who, which, who, which, ... */
    Floats numbers;
    Letter *first, *last; /* that wait for its link, of which versions of registers are `waiting` */
    Letters waiting;
    Unreads unread;
    const Int *around, *back; /* who they are; its place among those whom they see */
    Int *carried;             /* bytes to each of these */
    double delay[2][CHUNK];
    Int drawn[2];
} Agent;

typedef struct { Int n; const Int *at; } List;

/* What a handler makes: see `Done` in machine.py. */
typedef struct {
    Int forms, coefficients, numbers, then, wrote, computes, idle, effects;
    List kept, stamps, mixed;
    const Int *counts, *effect;
    Int *words;
} Made;

typedef struct { Int place, *words; } Question; /* without words: something is drawn */
typedef struct { Int place, key, node; } Edge;

/* A row of each table of a trace, as events.py lays it out. */
#pragma pack(push, 1)
typedef struct { double time; int32_t agent; int16_t event; int32_t source; int16_t kind; int64_t version;
                 double start, end; } EventRow;
typedef struct { double time; int32_t agent; int64_t step; } WriteRow;
typedef struct { int64_t write; int32_t source; int64_t version; } MixedRow;
typedef struct { double start, end; int32_t agent; int16_t kind; int64_t bytes; } TransmissionRow;
#pragma pack(pop)

/* What is asked of Python; below 0, or not a number: it raised an error. */
typedef struct {
    Int (*found)(Int agent, Int what, Int answers); /* what it makes, or asks first: the node of a handler */
    Int (*draw)(Int agent, Int question);           /* the number of the answer */
    const Int *(*called)(Int agent, Int what, const Int *values, Int many, const double *numbers, Int count,
                         Int source, Int version); /* what a handler makes that is called: see `call`; or NULL */
    Int (*delays)(Int which, Int agent, double *to);
    double (*ends)(Int which, Int agent, double start, double work); /* who is slowed down */
    Int (*instants)(Int agent, const Int *to, Int many, Int waits, double start, double work, double *when,
                    Int *counts, Int *who); /* of a transmission; the last of `when`: the link is free */
    Int (*lost)(Int agent, const Int *to, Int many, char *missed);
    Int (*parted)(Int agent, Int place, double now);
} Python;

typedef struct {
    Int agents, unicast, uniform, lossy, cut, model_bytes, done_code, mail_code, read_code;
    double bandwidth;
    const Int *slow[2], *called, *first, *around, *back; /* of each agent; where its places begin, and these */
} World;

/* Public, in this order, is what loop.py reads: from `now` to `order`. */
typedef struct {
    double now;
    Int number, messages, bytes, many, written; /* events; of transmissions; values; writes so far */
    Ints steps, first, known, taken, asked, at, agent; /* what is to be made: see mail_values.py */
    Floats coefficients;
    Bytes events, writes, mixed, transmissions;
    Ints answers, kinds, order; /* to questions just now; the trace's numbers of types; types by these */
    World world;
    Python python;
    Int wave;
    Agent *agents;
    Events queue;
    Letter letters; /* the ring of all */
    struct { Int n, room; Made *at; } made;
    struct { Int n, room; Question *at; } questions;
    Edge *edges;
    Int edge, edge_room;
    Ints vectors, versions, pairs; /* for a handler's time */
    Floats counted, results, when;
    Ints counts, who;
    jmp_buf out;
} Run;

static void give_up(Run *r) { longjmp(r->out, 1); }

/* With room for so many; NULL if there is no memory. */
static void *larger(void *at, Int *room, Int needed, size_t each)
{
    const Int wanted = 2 * *room > needed ? 2 * *room : needed + 16;
    void *new = realloc(at, (size_t)wanted * each);
    if (new)
        *room = wanted;
    return new;
}

static void *grown(Run *r, void *at, Int *room, Int needed, size_t each)
{
    void *new = larger(at, room, needed, each);
    if (!new)
        give_up(r);
    return new;
}

#define ROOM(list, more)                                                                                     \
    do {                                                                                                     \
        if ((list).n + (more) > (list).room)                                                                 \
            (list).at = grown(r, (list).at, &(list).room, (list).n + (more), sizeof *(list).at);             \
    } while (0)
#define PUSH(list, value)                                                                                    \
    do {                                                                                                     \
        ROOM(list, 1);                                                                                       \
        (list).at[(list).n++] = (value);                                                                     \
    } while (0)
#define ADD(list, from, many)                                                                                \
    do {                                                                                                     \
        ROOM(list, many);                                                                                    \
        if (many)                                                                                            \
            memcpy((list).at + (list).n, from, (size_t)(many) * sizeof *(list).at);                          \
        (list).n += (many);                                                                                  \
    } while (0)
#define ROW(table, Type, ...)                                                                                \
    do {                                                                                                     \
        const Type row = {__VA_ARGS__};                                                                      \
        ADD(table, &row, (Int)sizeof row);                                                                   \
    } while (0)

/* -- numbers ------------------------------------------------------------------------------------------- */

/* How many operations; of each its sign, two operands and whether whole numbers may come out; how many
   results, and which. An operand is -1: the time, -2 - k: numbers[k], or k: what operation k has made. False
   where Python's numbers are others: it raises an error, or a whole number is too large to be exact. */
static int evaluate(const Int *words, double time, const double *numbers, double *made, double *out)
{
    enum { PLUS, MINUS, TIMES, OVER, POWER, LARGER, NEGATIVE, LESS, LESS_EQUAL, MORE, MORE_EQUAL, EQUAL,
           OTHER, CONSTANT };
#define OF(k) ((k) >= 0 ? made[k] : (k) == -1 ? time : numbers[-2 - (k)])
    const Int operations = *words++;
    for (Int k = 0; k < operations; k++, words += 4) {
        double a = 0, b = 0, x;
        if (words[0] == CONSTANT)
            memcpy(&a, words + 1, sizeof a);
        else
            a = OF(words[1]), b = OF(words[2]);
        switch (words[0]) {
        case PLUS: x = a + b; break;
        case MINUS: x = a - b; break;
        case TIMES: x = a * b; break;
        case OVER:
            if (b == 0)
                return 0;
            x = a / b;
            break;
        case POWER:
            x = pow(a, b);
            if (isinf(x) && isfinite(a) && isfinite(b))
                return 0;
            break;
        case LARGER: x = b > a ? b : a; break;
        case NEGATIVE: x = -a; break;
        case LESS: x = a < b; break;
        case LESS_EQUAL: x = a <= b; break;
        case MORE: x = a > b; break;
        case MORE_EQUAL: x = a >= b; break;
        case EQUAL: x = a == b; break;
        case OTHER: x = a != b; break;
        default: x = a;
        }
        if (words[3] && (fabs(x) > 9007199254740992.0 || (x == 0 && signbit(x))))
            return 0;
        made[k] = x;
    }
    const Int results = *words++;
    for (Int k = 0; k < results; k++)
        out[k] = OF(words[k]);
    return 1;
}

/* For Python: of what it has to ask itself. */
int evaluated(const Int *words, double time, const double *numbers, double *made, double *out)
{
    return evaluate(words, time, numbers, made, out);
}

static const double *results(Run *r, const Int *words, const Floats *numbers)
{
    r->counted.n = r->results.n = 0;
    ROOM(r->counted, words[0]);
    ROOM(r->results, words[1 + 4 * words[0]]);
    if (!evaluate(words, r->now, numbers->at, r->counted.at, r->results.at))
        give_up(r);
    return r->results.at;
}

/* -- what is known of handlers ------------------------------------------------------------------------- */

static Edge *edge_of(const Run *r, Int place, Int key)
{
    const uint64_t mask = (uint64_t)r->edge_room - 1;
    uint64_t at = (uint64_t)place * 0x9E3779B97F4A7C15u ^ (uint64_t)key * 0xC2B2AE3D27D4EB4Fu;
    for (at = (at ^ at >> 29) & mask;; at = (at + 1) & mask) {
        Edge *edge = r->edges + at;
        if (edge->place < 0 || (edge->place == place && edge->key == key))
            return edge;
    }
}

/* From now on that comes of a place; 0 if there is no memory. */
int learned(Run *r, Int place, Int key, Int node)
{
    if (2 * r->edge >= r->edge_room) {
        Edge *old = r->edges;
        const Int before = r->edge_room;
        r->edge_room = before ? 2 * before : 1024;
        if (!(r->edges = malloc((size_t)r->edge_room * sizeof *old))) {
            r->edges = old, r->edge_room = before;
            return 0;
        }
        for (Int k = 0; k < r->edge_room; k++)
            r->edges[k].place = -1;
        for (Int k = 0; k < before; k++)
            if (old[k].place >= 0)
                *edge_of(r, old[k].place, old[k].key) = old[k];
        free(old);
    }
    Edge *edge = edge_of(r, place, key);
    r->edge += edge->place < 0;
    *edge = (Edge){place, key, node};
    return 1;
}

static List listed(const Int **words)
{
    const List list = {**words, *words + 1};
    *words += 1 + list.n;
    return list;
}

/* A copy, which is to be freed; NULL if there is no memory. */
static Int *copied(const Int *words, Int many)
{
    Int *copy = malloc((size_t)(many + 1) * sizeof *words);
    return copy ? memcpy(copy, words, (size_t)many * sizeof *words) : NULL;
}

/* What a handler makes, as discovered.py writes it. */
static Made read(Int *words)
{
    const Int *at = words + 8;
    Made m = {words[0], words[1], words[2], words[3], words[4], words[5], words[6], words[7], .words = words};
    m.kept = listed(&at), m.stamps = listed(&at), m.mixed = listed(&at);
    const List counts = listed(&at);
    m.counts = counts.n ? counts.at : NULL;
    m.effect = at;
    return m;
}

/* One more of these; 0 if there is no memory. */
int made(Run *r, const Int *words, Int many)
{
    Int *own = copied(words, many);
    if (r->made.n == r->made.room) {
        Made *new = larger(r->made.at, &r->made.room, r->made.n + 1, sizeof *new);
        r->made.at = new ? new : r->made.at;
    }
    if (!own || r->made.n == r->made.room) {
        free(own);
        return 0;
    }
    r->made.at[r->made.n++] = read(own);
    return 1;
}

/* One more question, whose answers lead on from that place; 0 if there is no memory. */
int asked(Run *r, Int place, const Int *words, Int many)
{
    Int *own = many ? copied(words, many) : NULL;
    if (r->questions.n == r->questions.room) {
        Question *new = larger(r->questions.at, &r->questions.room, r->questions.n + 1, sizeof *new);
        r->questions.at = new ? new : r->questions.at;
    }
    if ((many && !own) || r->questions.n == r->questions.room) {
        free(own);
        return 0;
    }
    r->questions.at[r->questions.n++] = (Question){place, own};
    return 1;
}

/* What an agent's handler makes. */
static const Made *becomes(Run *r, Int i, Int what)
{
    Agent *a = r->agents + i;
    Int place = a->place, key = what, node;
    r->answers.n = 0;
    while ((node = edge_of(r, place, key)->place < 0 ? -1 : edge_of(r, place, key)->node) < -1) {
        const Question *q = r->questions.at - 2 - node;
        place = q->place;
        key = q->words ? *results(r, q->words, &a->numbers) != 0 : r->python.draw(i, -2 - node);
        if (key < 0)
            give_up(r);
        PUSH(r->answers, key);
    }
    if (node < 0 && (node = r->python.found(i, what, r->answers.n)) < 0)
        give_up(r);
    return r->made.at + node;
}

/* -- what is scheduled --------------------------------------------------------------------------------- */

static int earlier(const Event *a, const Event *b)
{
    if (a->time != b->time)
        return a->time < b->time;
    if (a->wave != b->wave)
        return a->wave < b->wave;
    return a->priority != b->priority ? a->priority < b->priority : a->number < b->number;
}

static void schedule(Run *r, Event event)
{
    event.wave = event.time <= r->now ? r->wave + 1 : 0;
    event.number = ++r->number;
    if (event.wave > WAVES || isnan(event.time))
        give_up(r);
    ROOM(r->queue, 1);
    Event *heap = r->queue.at;
    Int at = r->queue.n++;
    for (; at && earlier(&event, heap + (at - 1) / 2); at = (at - 1) / 2)
        heap[at] = heap[(at - 1) / 2];
    heap[at] = event;
}

static Event next(Run *r)
{
    Event *heap = r->queue.at;
    const Event first = heap[0], last = heap[--r->queue.n];
    Int at = 0, n = r->queue.n;
    for (Int below; (below = 2 * at + 1) < n; at = below) {
        below += below + 1 < n && earlier(heap + below + 1, heap + below);
        if (!earlier(heap + below, &last))
            break;
        heap[at] = heap[below];
    }
    if (n)
        heap[at] = last;
    return first;
}

static double delay(Run *r, Int i, Int which)
{
    Agent *a = r->agents + i;
    if (a->drawn[which] == CHUNK) {
        if (r->python.delays(which, i, a->delay[which]) < 0)
            give_up(r);
        a->drawn[which] = 0;
    }
    return a->delay[which][a->drawn[which]++];
}

/* -- letters ------------------------------------------------------------------------------------------- */

static Letter *letter_of(Run *r, Int sender, Int receivers, Int vectors, Int numbers)
{
    const size_t words = (size_t)(receivers + vectors + numbers);
    Letter *l = calloc(1, sizeof *l + 8 * words + (size_t)receivers);
    if (!l)
        give_up(r);
    l->sender = sender, l->receivers = receivers, l->vectors = vectors, l->numbers = numbers;
    l->to = (Int *)(l + 1), l->value = l->to + receivers, l->number = (double *)(l->value + vectors);
    l->missed = (char *)(l->number + numbers);
    l->before = r->letters.before, l->after = &r->letters;
    l->before->after = l->after->before = l;
    return l;
}

static void used(Letter *l)
{
    if (--l->uses)
        return;
    l->before->after = l->after, l->after->before = l->before;
    free(l);
}

static void transmit(Run *r, Int i, Letter *l)
{
    Agent *a = r->agents + i;
    const World *w = &r->world;
    const Int size = l->vectors * w->model_bytes;
    const double work = size ? delay(r, i, SENDS) * (double)size / (double)w->model_bytes : 0;
    double end;
    l->start = r->now;
    if (w->uniform) {
        end = w->slow[SENDS][i] ? r->python.ends(SENDS, i, r->now, work) : r->now + work / w->bandwidth;
        l->uses++;
        schedule(r, (Event){end, .priority = DELIVERY, .agent = i, .letter = l, .frees = 1, .many = l->receivers});
    } else {
        r->when.n = r->counts.n = r->who.n = 0;
        ROOM(r->when, l->receivers + 2);
        ROOM(r->counts, l->receivers + 1);
        ROOM(r->who, l->receivers);
        const Int many = r->python.instants(
            i, l->to, l->receivers, !l->published, r->now, work, r->when.at, r->counts.at, r->who.at);
        if (many < 0)
            give_up(r);
        end = r->when.at[many];
        for (Int k = 0, from = 0; k < many; from += r->counts.at[k++]) {
            Event event = {r->when.at[k], .priority = DELIVERY, .agent = i, .letter = l,
                           .frees = r->when.at[k] == end, .many = r->counts.at[k]};
            if (!(event.there = copied(r->who.at + from, event.many)))
                give_up(r);
            l->uses++;
            schedule(r, event);
        }
    }
    while (r->kinds.n <= l->kind)
        PUSH(r->kinds, -1);
    if (r->kinds.at[l->kind] < 0) {
        r->kinds.at[l->kind] = r->order.n;
        PUSH(r->order, l->kind);
    }
    for (Int k = 0; k < l->receivers; k++)
        a->carried[l->to[k]] += size;
    r->messages++, r->bytes += size;
    ROW(r->transmissions, TransmissionRow, r->now, end, (int32_t)i, (int16_t)r->kinds.at[l->kind], size);
    used(l);
}

/* A letter leaves at once, or waits until those before have left; of a register the newest. */
static void post(Run *r, Int i, Letter *l)
{
    Agent *a = r->agents + i;
    l->uses = 1;
    if (!a->busy) {
        a->busy = 1;
        transmit(r, i, l);
        return;
    }
    for (Int k = 0; l->published && k < a->waiting.n; k++) {
        Letter *older = a->waiting.at[k];
        if (older->kind != l->kind || older->receivers != l->receivers ||
            memcmp(older->to, l->to, (size_t)l->receivers * sizeof *l->to))
            continue;
        older->version = l->version;
        memcpy(older->value, l->value, (size_t)l->vectors * sizeof *l->value);
        memcpy(older->number, l->number, (size_t)l->numbers * sizeof *l->number);
        used(l);
        return;
    }
    if (l->published)
        PUSH(a->waiting, l);
    if (a->first)
        a->last->next = l;
    else
        a->first = l;
    a->last = l;
}

/* An agent's link is free. */
static void follows(Run *r, Int i)
{
    Agent *a = r->agents + i;
    Letter *l = a->first;
    if (!l) {
        a->busy = 0;
        return;
    }
    a->first = l->next;
    for (Int k = 0; l->published && k < a->waiting.n; k++)
        if (a->waiting.at[k] == l)
            a->waiting.at[k] = a->waiting.at[--a->waiting.n];
    transmit(r, i, l);
}

/* A vector's, if these are those of a handler's vectors; NULL: it is called, and they are values. */
static Int value_of(const Int *value, Int vector)
{
    return !value ? vector : vector < 0 ? NONE : value[vector];
}

/* What an effect of a handler gives away: type, whether it is published, to whom, vectors, and from which to
   which of the numbers; the words that follow. */
static const Int *give(Run *r, Int i, const Int *words, const Int *value, const double *given)
{
    const Int kind = *words++, published = *words++;
    const List to = listed(&words), vectors = listed(&words);
    const Int low = *words++, high = *words++, letters = r->world.unicast ? to.n : 1;
    for (Int k = 0; k < letters; k++) {
        Letter *l = letter_of(r, i, r->world.unicast ? 1 : to.n, vectors.n, high - low);
        l->kind = kind, l->published = published, l->version = vectors.n ? r->agents[i].version : -1;
        memcpy(l->to, to.at + k, (size_t)l->receivers * sizeof *l->to);
        for (Int v = 0; v < vectors.n; v++)
            l->value[v] = value_of(value, vectors.at[v]);
        if (high > low)
            memcpy(l->number, given + low, (size_t)(high - low) * sizeof *given);
        post(r, i, l);
    }
    return words;
}

/* -- events -------------------------------------------------------------------------------------------- */

/* Which of others' versions enter a write: each once, in order. */
static void mix(Run *r, const Made *m, const Int *stamps)
{
    Int(*pair)[2], n = 0;
    r->pairs.n = 0;
    ROOM(r->pairs, 2 * m->mixed.n);
    pair = (Int(*)[2])r->pairs.at;
    for (Int k = 0; k < m->mixed.n; k++) {
        const Int *new = stamps + 2 * m->mixed.at[k];
        Int at = 0;
        while (at < n && (pair[at][0] < new[0] || (pair[at][0] == new[0] && pair[at][1] < new[1])))
            at++;
        if (at < n && pair[at][0] == new[0] && pair[at][1] == new[1])
            continue;
        memmove(pair + at + 1, pair + at, (size_t)(n++ - at) * sizeof *pair);
        pair[at][0] = new[0], pair[at][1] = new[1];
    }
    for (Int k = 0; k < n; k++)
        ROW(r->mixed, MixedRow, r->written, (int32_t)pair[k][0], pair[k][1]);
}

/* An agent's handler is called: with which coefficients it makes vectors, of which values, whose versions entered
   its model, the number of its forms, and what it makes. Its vectors are values. */
static const double *call(Run *r, Int i, Int what, const Int *heard, Int many, Int source, Int version, Made *m,
                          Int *step)
{
    const Floats *numbers = &r->agents[i].numbers;
    const Int *words = r->python.called(i, what, heard, many, numbers->at, numbers->n, source, version);
    if (!words)
        give_up(r);
    const double *coefficients = (const double *)(uintptr_t)*words++;
    const List known = listed(&words), versions = listed(&words);
    *step = *words++;
    *m = read((Int *)words);
    r->vectors.n = r->versions.n = 0;
    ADD(r->vectors, known.at, known.n);
    ADD(r->versions, versions.at, versions.n);
    return coefficients;
}

/* What an agent's handler makes is known: the numbers that it has by then, and with which coefficients it makes
   vectors of those that it has and hears. */
static const double *look_up(Run *r, Int i, Int what, const Int *heard, Int many, Int source, Int version, Made *m,
                             Int *step)
{
    Agent *a = r->agents + i;
    const Made *found = becomes(r, i, what);
    *m = *found, *step = found - r->made.at;
    const double *numbers = m->counts ? results(r, m->counts, &a->numbers) : NULL;
    r->vectors.n = r->versions.n = 0;
    ADD(r->vectors, a->own.at, a->own.n);
    ADD(r->vectors, heard, many);
    ADD(r->versions, a->stamps.at, a->stamps.n);
    PUSH(r->versions, source);
    PUSH(r->versions, version);
    return numbers;
}

/* Something happens to an agent: what its handler makes is noted, what it asks for done. With what it heard, and
   from whom. */
static void happens(Run *r, Int i, Int what, const Int *heard, Int many, Int source, Int version)
{
    Agent *a = r->agents + i;
    Made made, *m = &made;
    Int step;
    const double *numbers = (a->called ? call : look_up)(r, i, what, heard, many, source, version, m, &step);
    const double *coefficients = numbers ? numbers + m->numbers : NULL;
    a->numbers.n = 0;
    ADD(a->numbers, numbers, m->numbers);
    a->place = m->then;
    a->stamps.n = 0;
    for (Int k = 0; k < m->stamps.n; k++)
        ADD(a->stamps, r->versions.at + 2 * m->stamps.at[k], 2);
    if (m->forms) {
        PUSH(r->steps, step);
        PUSH(r->first, r->many);
        ADD(r->known, r->vectors.at, r->vectors.n);
        ADD(r->coefficients, coefficients, m->coefficients);
        for (Int k = 0; k < m->forms; k++)
            PUSH(r->vectors, r->many++);
    }
    const Int *value = a->called ? NULL : r->vectors.at;
    if (!m->idle) {
        a->own.n = 0;
        for (Int k = 0; k < m->kept.n; k++)
            PUSH(a->own, value_of(value, m->kept.at[k]));
    }
    if (m->wrote) {
        a->version++;
        a->steps += m->computes;
        ROW(r->writes, WriteRow, r->now, (int32_t)i, a->steps);
        mix(r, m, r->versions.at);
        r->written++;
    }
    const Int *words = m->effect;
    for (Int k = 0; k < m->effects; k++) {
        if (*words < 0) {
            const double work = delay(r, i, COMPUTES);
            const double end = r->world.slow[COMPUTES][i] ? r->python.ends(COMPUTES, i, r->now, work) : r->now + work;
            schedule(r, (Event){end, r->now, .priority = GRADIENT, .agent = i});
            words++;
        } else
            words = give(r, i, words, value, coefficients ? coefficients + m->coefficients : NULL);
    }
}

/* An agent is told. */
static void hears(Run *r, Int i, Int place, const Letter *l, double came, int read)
{
    const Int code = read ? r->world.read_code : r->world.mail_code;
    ROW(r->events, EventRow, r->now, (int32_t)i, (int16_t)code, (int32_t)l->sender,
        (int16_t)r->kinds.at[l->kind], l->version, l->start, came);
    ADD(r->agents[i].numbers, l->number, l->numbers);
    const Int what = LETTERS + 2 * (place * KINDS + l->kind) + read;
    happens(r, i, what, l->value, l->vectors, l->sender, l->version);
}

/* A gradient is there; before it the agent reads what is new in registers. */
static void computed(Run *r, Int i, double start)
{
    Agent *a = r->agents + i;
    for (Int k = 0; k < a->unread.n; k++)
        hears(r, i, a->unread.at[k].place, a->unread.at[k].letter, a->unread.at[k].came, 1);
    for (Int k = 0; k < a->unread.n; k++)
        used(a->unread.at[k].letter);
    a->unread.n = 0;
    ROW(r->events, EventRow, r->now, (int32_t)i, (int16_t)r->world.done_code, -1, -1, a->steps, start, r->now);
    const Int gradient = r->many++;
    PUSH(r->taken, gradient);
    PUSH(r->asked, a->own.at[1]);
    PUSH(r->agent, i);
    PUSH(r->at, r->steps.n);
    happens(r, i, COMPUTED, &gradient, 1, -1, -1);
}

/* A version of a register is with this reader, who has not read it yet: the newest is read last. */
static void leave(Run *r, Int j, Int place, Letter *l)
{
    Agent *a = r->agents + j;
    Int to = 0;
    for (Int k = 0; k < a->unread.n; k++) {
        Letter *older = a->unread.at[k].letter;
        if (older->sender == l->sender && older->kind == l->kind)
            used(older);
        else
            a->unread.at[to++] = a->unread.at[k];
    }
    a->unread.n = to;
    PUSH(a->unread, ((Unread){l, place, r->now}));
    l->uses++;
}

/* A letter is with some of its receivers; perhaps the next begins. */
static void arrived(Run *r, const Event *event)
{
    const Int i = event->agent;
    const Agent *a = r->agents + i;
    Letter *l = event->letter;
    if (l->published && r->world.lossy && !l->drawn) {
        if (r->python.lost(i, l->to, l->receivers, l->missed) < 0)
            give_up(r);
        l->drawn = 1;
    }
    for (Int k = 0; k < event->many; k++) {
        const Int index = event->there ? event->there[k] : k, to = l->to[index];
        const Int j = a->around[to], place = a->back[to];
        if (place < 0)
            give_up(r);
        if (!l->published)
            hears(r, j, place, l, r->now, 0);
        else if (!l->missed[index] && !(r->world.cut && r->python.parted(i, to, r->now)))
            leave(r, j, place, l);
    }
    if (event->frees)
        follows(r, i);
    used(l);
    free(event->there);
}

/* -- a run --------------------------------------------------------------------------------------------- */

/* Every agent begins, in that state. ENDED, or GIVEN_UP. */
int start(Run *r, const Int *places)
{
    if (setjmp(r->out))
        return GIVEN_UP;
    for (Int i = 0; i < r->world.agents; i++) {
        r->agents[i].place = places[i];
        PUSH(r->agents[i].own, 0);
    }
    for (Int i = 0; i < r->world.agents; i++)
        happens(r, i, BEGIN, NULL, 0, -1, -1);
    return ENDED;
}

/* All up to that time: ENDED; or until there are so many values, or rows: PAUSED. */
int run(Run *r, double until, Int most)
{
    if (setjmp(r->out))
        return GIVEN_UP;
    const Int rows = r->events.n + most * (Int)sizeof(EventRow);
    while (r->queue.n && r->queue.at[0].time <= until) {
        if (r->many > most || r->events.n > rows)
            return PAUSED;
        const Event event = next(r);
        r->now = event.time, r->wave = event.wave;
        if (event.priority == GRADIENT)
            computed(r, event.agent, event.start);
        else
            arrived(r, &event);
    }
    return ENDED;
}

/* When something happens next. */
double coming(const Run *r) { return r->queue.n ? r->queue.at[0].time : INFINITY; }

/* The values that agents have, and those of letters, one after the other; how many. With `as` they have these
   numbers from now on: what was to be made is made, and there are so many values. */
Int held(Run *r, Int *values, const Int *as, Int many)
{
    Int n = 0;
#define EACH(list, count)                                                                                    \
    for (Int k = 0; k < (count); k++, n++)                                                                   \
        if (as)                                                                                              \
            (list)[k] = as[n];                                                                               \
        else if (values)                                                                                     \
            values[n] = (list)[k];
    for (Int i = 0; i < r->world.agents; i++)
        EACH(r->agents[i].own.at, r->agents[i].own.n)
    for (Letter *l = r->letters.after; l != &r->letters; l = l->after)
        EACH(l->value, l->vectors)
    if (as) {
        r->many = many;
        r->steps.n = r->first.n = r->known.n = r->taken.n = r->asked.n = r->at.n = r->agent.n = 0;
        r->coefficients.n = 0;
    }
    return n;
}

/* The rows of the trace are somewhere else. */
void recorded(Run *r) { r->events.n = r->writes.n = r->mixed.n = r->transmissions.n = 0; }

void end(Run *r)
{
    for (Int k = 0; k < r->queue.n; k++)
        free(r->queue.at[k].there);
    for (Letter *l = r->letters.after, *after; l != &r->letters; l = after)
        after = l->after, free(l);
    for (Int i = 0; i < r->world.agents; i++) {
        Agent *a = r->agents + i;
        free(a->own.at), free(a->stamps.at), free(a->numbers.at), free(a->waiting.at), free(a->unread.at);
        free(a->carried);
    }
    for (Int k = 0; k < r->made.n; k++)
        free(r->made.at[k].words);
    for (Int k = 0; k < r->questions.n; k++)
        free(r->questions.at[k].words);
    void *lists[] = {
        r->steps.at, r->first.at, r->known.at, r->taken.at, r->asked.at, r->at.at, r->agent.at,
        r->coefficients.at, r->events.at, r->writes.at, r->mixed.at, r->transmissions.at, r->answers.at,
        r->kinds.at, r->order.at, r->agents, r->queue.at, r->made.at, r->questions.at, r->edges,
        r->vectors.at, r->versions.at, r->pairs.at, r->counted.at, r->results.at, r->when.at, r->counts.at,
        r->who.at, r};
    for (size_t k = 0; k < sizeof lists / sizeof *lists; k++)
        free(lists[k]);
}

/* A run in that world, whose arrays stay where they are; NULL if there is no memory. */
Run *begun(const World *world, const Python *python)
{
    Run *r = calloc(1, sizeof *r);
    if (!r)
        return NULL;
    r->letters.before = r->letters.after = &r->letters;
    r->world = *world, r->python = *python, r->many = 2;
    r->agents = calloc((size_t)world->agents, sizeof *r->agents);
    if (!r->agents)
        r->world.agents = 0;
    int whole = r->agents && learned(r, 0, -1, -1);
    for (Int i = 0; i < r->world.agents; i++) {
        Agent *a = r->agents + i;
        a->around = world->around + world->first[i], a->back = world->back + world->first[i];
        a->called = world->called[i];
        a->drawn[COMPUTES] = a->drawn[SENDS] = CHUNK;
        a->carried = calloc((size_t)(world->first[i + 1] - world->first[i]) + 1, sizeof *a->carried);
        whole = whole && a->carried;
    }
    if (whole)
        return r;
    end(r);
    return NULL;
}

/* Of agent i: its state; how many steps it made; its model; the numbers that it has; bytes that it sent to
   each of those around it. */
Int place_of(const Run *r, Int i) { return r->agents[i].place; }
Int steps_of(const Run *r, Int i) { return r->agents[i].steps; }
Int model_of(const Run *r, Int i) { return r->agents[i].own.at[0]; }
const double *numbers_of(const Run *r, Int i) { return r->agents[i].numbers.at; }
const Int *carried(const Run *r, Int i) { return r->agents[i].carried; }
