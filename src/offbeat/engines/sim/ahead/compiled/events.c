/* What happens to agents. */

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

/* What happens to an agent: with which values, and which version of whose. */
typedef struct { Int what, many, source, version; const Int *values; } Heard;

/* What a handler makes: of its vectors the values are in `vectors`, the versions that they are of in
   `versions`. The number of its forms; the numbers that its agent has from now on, the coefficients of the forms
   and what is given away, or NULL. */
typedef struct { Made made; Int step; const double *numbers; } Handled;

/* Of a handler that is called. Its vectors are values. */
static Handled call(Run *r, Int i, const Heard *h)
{
    const Floats *numbers = &r->agents[i].numbers;
    const Int *words = r->python.called(
        i, h->what, h->values, h->many, numbers->at, numbers->n, h->source, h->version, r->now, r->many);
    answered(r);
    const double *coefficients = (const double *)(uintptr_t)*words++;
    const List known = listed(&words), versions = listed(&words);
    const Int step = *words++;
    r->vectors.n = r->versions.n = 0;
    ADD(r->vectors, known.at, known.n);
    ADD(r->versions, versions.at, versions.n);
    return (Handled){made_of(words), step, coefficients};
}

/* Of a handler that is known. Its vectors are those that its agent has, what is heard, and what it makes. */
static Handled look_up(Run *r, Int i, const Heard *h)
{
    const Agent *a = r->agents + i;
    const Int step = becomes(r, i, h->what);
    const Made *made = r->made.at + step;
    const double *numbers = made->counts ? results(r, made->counts, &a->numbers) : NULL;
    r->vectors.n = r->versions.n = 0;
    ADD(r->vectors, a->own.at, a->own.n);
    ADD(r->vectors, h->values, h->many);
    ADD(r->versions, a->stamps.at, a->stamps.n);
    PUSH(r->versions, h->source);
    PUSH(r->versions, h->version);
    return (Handled){*made, step, numbers};
}

static void compute(Run *r, Int i)
{
    const double work = delay(r, i, COMPUTES);
    const int slow = r->world.slow[COMPUTES][i] != 0;
    const double end = slow ? r->python.ends(COMPUTES, i, r->now, work) : r->now + work;
    answered(r);
    schedule(r, (Event){end, r->now, .priority = GRADIENT, .agent = i});
}

/* Something happens to an agent: what its handler makes is noted, what it asks for done. */
static void happens(Run *r, Int i, Heard heard)
{
    Agent *a = r->agents + i;
    const Handled handled = (a->called ? call : look_up)(r, i, &heard);
    const Made *m = &handled.made;
    const double *numbers = handled.numbers;
    const double *coefficients = numbers ? numbers + m->numbers : NULL;
    a->numbers.n = 0;
    ADD(a->numbers, numbers, m->numbers);
    a->place = m->then;
    a->stamps.n = 0;
    for (Int k = 0; k < m->stamps.n; k++)
        ADD(a->stamps, r->versions.at + 2 * m->stamps.at[k], 2);
    if (m->forms) {
        PUSH(r->steps, handled.step);
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
            compute(r, i);
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
    happens(r, i, (Heard){what, l->vectors, l->sender, l->version, l->value});
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
    const int16_t code = (int16_t)r->world.done_code;
    ROW(r->events, EventRow, r->now, (int32_t)i, code, -1, -1, a->steps, start, r->now);
    const Int gradient = r->many++;
    PUSH(r->taken, gradient);
    PUSH(r->asked, a->own.at[1]);
    PUSH(r->agent, i);
    PUSH(r->at, r->steps.n);
    happens(r, i, (Heard){COMPUTED, 1, -1, -1, &gradient});
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

/* Whether a cut parts an agent from that one around it. */
static int parted(Run *r, Int i, Int to)
{
    const int apart = r->world.cut && r->python.parted(i, to, r->now);
    answered(r);
    return apart;
}

/* A letter is with some of its receivers; perhaps the next begins. */
static void arrived(Run *r, const Event *event)
{
    const Int i = event->agent;
    const Agent *a = r->agents + i;
    Letter *l = event->letter;
    r->there = event->there;
    if (l->published && r->world.lossy && !l->drawn) {
        r->python.lost(i, l->to, l->receivers, l->missed);
        answered(r);
        l->drawn = 1;
    }
    for (Int k = 0; k < event->many; k++) {
        const Int index = event->there ? event->there[k] : k, to = l->to[index];
        const Int j = a->around[to], place = a->back[to];
        if (place < 0)
            give_up(r);
        if (!l->published)
            hears(r, j, place, l, r->now, 0);
        else if (!l->missed[index] && !parted(r, i, to))
            leave(r, j, place, l);
    }
    if (event->frees)
        follows(r, i);
    used(l);
    free(r->there);
    r->there = NULL;
}

