/* Letters: what is sent or published, waits for its sender's link, and leaves. */

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
        answered(r);
        l->uses++;
        const Event event = {
            end, .priority = DELIVERY, .agent = i, .letter = l, .frees = 1, .many = l->receivers};
        schedule(r, event);
    } else {
        r->when.n = r->counts.n = r->who.n = 0;
        ROOM(r->when, l->receivers + 2);
        ROOM(r->counts, l->receivers + 1);
        ROOM(r->who, l->receivers);
        const Int many = r->python.instants(
            i, l->to, l->receivers, !l->published, r->now, work, r->when.at, r->counts.at, r->who.at);
        answered(r);
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

