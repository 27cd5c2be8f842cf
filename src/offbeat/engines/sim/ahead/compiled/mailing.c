/* A run, as loop.py drives it. */

/* Every agent begins, in that state. ENDED, or GIVEN_UP. */
int mail_start(Run *r, const Int *places)
{
    if (setjmp(r->out))
        return GIVEN_UP;
    for (Int i = 0; i < r->world.agents; i++) {
        r->agents[i].place = places[i];
        PUSH(r->agents[i].own, 0);
    }
    for (Int i = 0; i < r->world.agents; i++)
        happens(r, i, (Heard){BEGIN, 0, -1, -1, NULL});
    return ENDED;
}

/* All up to that time: ENDED; or until there are so many values, or rows: PAUSED. */
int mail_run(Run *r, double until, Int most)
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
double mail_coming(const Run *r) { return r->queue.n ? r->queue.at[0].time : INFINITY; }

/* The values that agents have, and those of letters, one after the other; how many. With `as` they have these
   numbers from now on: what was to be made is made, and there are so many values. */
Int mail_held(Run *r, Int *values, const Int *as, Int many)
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
void mail_recorded(Run *r) { r->events.n = r->writes.n = r->mixed.n = r->transmissions.n = 0; }

void mail_end(Run *r)
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
        free((void *)r->made.at[k].words);
    for (Int k = 0; k < r->questions.n; k++)
        free(r->questions.at[k].words);
    void *lists[] = {
        r->there, r->steps.at, r->first.at, r->known.at, r->taken.at, r->asked.at, r->at.at, r->agent.at,
        r->coefficients.at, r->events.at, r->writes.at, r->mixed.at, r->transmissions.at, r->answers.at,
        r->kinds.at, r->order.at, r->agents, r->queue.at, r->made.at, r->questions.at, r->edges,
        r->vectors.at, r->versions.at, r->pairs.at, r->counted.at, r->results.at, r->when.at, r->counts.at,
        r->who.at, r};
    for (size_t k = 0; k < sizeof lists / sizeof *lists; k++)
        free(lists[k]);
}

/* A run in that world, whose arrays stay where they are; NULL if there is no memory. */
Run *mail_begun(const World *world, const Python *python)
{
    Run *r = calloc(1, sizeof *r);
    if (!r)
        return NULL;
    r->letters.before = r->letters.after = &r->letters;
    r->world = *world, r->python = *python, r->many = 2;
    r->agents = calloc((size_t)world->agents, sizeof *r->agents);
    if (!r->agents)
        r->world.agents = 0;
    int whole = r->agents && mail_learned(r, 0, -1, -1);
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
    mail_end(r);
    return NULL;
}

/* Of agent i: its state; how many steps it made; its model; the numbers that it has; bytes that it sent to
   each of those around it. */
Int mail_place_of(const Run *r, Int i) { return r->agents[i].place; }
Int mail_steps_of(const Run *r, Int i) { return r->agents[i].steps; }
Int mail_model_of(const Run *r, Int i) { return r->agents[i].own.at[0]; }
const double *mail_numbers_of(const Run *r, Int i) { return r->agents[i].numbers.at; }
const Int *mail_carried(const Run *r, Int i) { return r->agents[i].carried; }
