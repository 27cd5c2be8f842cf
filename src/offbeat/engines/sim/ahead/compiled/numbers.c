/* Programs of numbers, as numbers.py writes them. */

/* How many operations; of each its sign, two operands and whether whole numbers may come out; how many
   results, and which. An operand is -1: the time, -2 - k: numbers[k], or k: what operation k has made. False
   where Python's numbers are others: it raises an error, or a whole number is too large to be exact. */
int mail_evaluated(const Int *words, double time, const double *numbers, double *made, double *out)
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

static const double *results(Run *r, const Int *words, const Floats *numbers)
{
    r->counted.n = r->results.n = 0;
    ROOM(r->counted, words[0]);
    ROOM(r->results, words[1 + 4 * words[0]]);
    if (!mail_evaluated(words, r->now, numbers->at, r->counted.at, r->results.at))
        give_up(r);
    return r->results.at;
}

