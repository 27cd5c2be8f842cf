/* What is known of handlers, as it is found out. */

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
int mail_learned(Run *r, Int place, Int key, Int node)
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
static Made made_of(const Int *words)
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
int mail_made(Run *r, const Int *words, Int many)
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
    r->made.at[r->made.n++] = made_of(own);
    return 1;
}

/* One more question, whose answers lead on from that place; 0 if there is no memory. */
int mail_asked(Run *r, Int place, const Int *words, Int many)
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

/* The number of what an agent's handler makes. */
static Int becomes(Run *r, Int i, Int what)
{
    Agent *a = r->agents + i;
    Int place = a->place, key = what, node;
    r->answers.n = 0;
    while ((node = edge_of(r, place, key)->place < 0 ? -1 : edge_of(r, place, key)->node) < -1) {
        const Question *q = r->questions.at - 2 - node;
        place = q->place;
        key = q->words ? *results(r, q->words, &a->numbers) != 0 : r->python.draw(i, -2 - node);
        answered(r);
        PUSH(r->answers, key);
    }
    if (node < 0) {
        node = r->python.found(i, what, r->answers.n);
        answered(r);
    }
    return node;
}

