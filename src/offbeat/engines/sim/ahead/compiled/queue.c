/* What is scheduled, and how long it takes. */

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
    if (event.wave > WAVES || isnan(event.time)) {
        free(event.there);
        give_up(r);
    }
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
        r->python.delays(which, i, a->delay[which]);
        answered(r);
        a->drawn[which] = 0;
    }
    return a->delay[which][a->drawn[which]++];
}

