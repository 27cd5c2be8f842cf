/* Agents that mail one another, or read each other's registers: which event comes when, and what is made at
   each, from numbers alone. See mailing.py; loop.py compiles these files as one: types, numbers, handlers,
   queue, letters, events, mailing. discovered.py says what an agent makes where that is not known.

   Agents are known to one another by their place among those whom they see (`around`); what may happen to one
   is 0: it begins, 1: its gradient is there, or a letter: 2 + 2 (place KINDS + type) + whether it is read
   from a register. What becomes of a place (a state, or a question) when that happens, or is the answer, is
   a node: what a handler makes (0, 1, ...), a question (-2, -3, ...), or not known yet (-1). To be compiled with
   -ffp-contract=off, as numbers are what handlers would make of them; -DKINDS: so many types of letters there
   may be; -DCHUNK: so many delays are drawn at once. */

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
    const Int *words;
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

/* What is asked of Python; after each call `answered` has to see whether it raised an error. */
typedef struct {
    Int (*found)(Int agent, Int what, Int answers); /* what it makes, or asks first: the node of a handler */
    Int (*draw)(Int agent, Int question);           /* the number of the answer */
    /* what a handler makes that is called: see `call`; the number of the next value */
    const Int *(*called)(Int agent, Int what, const Int *values, Int many, const double *numbers, Int count,
                         Int source, Int version, double now, Int next);
    void (*delays)(Int which, Int agent, double *to);
    double (*ends)(Int which, Int agent, double start, double work); /* who is slowed down */
    Int (*instants)(Int agent, const Int *to, Int many, Int waits, double start, double work, double *when,
                    Int *counts, Int *who); /* of a transmission; the last of `when`: the link is free */
    void (*lost)(Int agent, const Int *to, Int many, char *missed);
    Int (*parted)(Int agent, Int place, double now);
} Python;

typedef struct {
    Int agents, unicast, uniform, lossy, cut, model_bytes, done_code, mail_code, read_code;
    double bandwidth;
    const Int *slow[2], *called, *first, *around, *back; /* of each agent; where its places begin, these */
} World;

/* Public, in this order, is what loop.py reads: from `now` to `order`. */
typedef struct {
    double now;
    Int raised; /* whether Python has raised an error: its answer is none */
    Int number, messages, bytes, many, written; /* events; of transmissions; values; writes so far */
    Ints steps, first, known, taken, asked, at, agent; /* what is to be made: see mail_values.py */
    Floats coefficients;
    Bytes events, writes, mixed, transmissions;
    Ints answers, kinds, order; /* to questions just now; the trace's numbers of types; types by these */
    World world;
    Python python;
    Int wave, *there; /* of the event that goes on: see `Event` */
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

static void answered(Run *r)
{
    if (r->raised)
        give_up(r);
}

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

