"""Runs whose timing is known before any arithmetic.

Where agents wait for nobody, what happens when follows from random streams alone. In the order in which a
run goes through them, a segment of time at a time:

    reading, placeholders,  what an algorithm's class does at its events, found out from it, in the end as
    fields, states,         states, and templates of linear forms
    unchanged
    rhythm, probing         what agents give one another, found out from that; whether a class can be read
    calendars               each agent's gradients and transmissions
    schedule, instants      all of them in order: which transmission is the newest at which gradient
    playing                 which template each step of an agent is
    timetable               what comes out, and the trace of it
    tape                    the values that all steps make, and what enters them
    levels                  the arithmetic, in calls as wide as can be
    scheduled               such a run as an engine

Who waits for others has no such timetable, but where times follow from one another round by round:

    ring                    rings of sums: such a run as an engine
    ring_times, ring_trace  when what happens in them, hop by hop, and the trace of it
    ring_reading            what an agent's class makes of gradients and means
    ring_values             the arithmetic; or, where that is not linear or not compiled,
    ring_handlers           handlers, called at gradients and means
    rounds                  rounds with a barrier among neighbours: such a run as an engine
    round_times             when what happens in them, and the trace of it
    round_reading           what an agent's class makes in a round
    repeating               what repeats itself, of rings and of rounds
    round_numbers           what it does with numbers that letters bring
    round_values            the arithmetic

Where agents answer whenever they are asked, or give away numbers that others go by, events come as in the
simulator, but no handler is called:

    machine, letters,       what an agent's class does at an event, as a machine of states; and numbers
    numbers                 that follow from the time, and from those that it hears
    mailing                 such a run as an engine, and the trace of it
    discovered              what agents make, told to the events as it is found out
    called                  agents whose handlers are called nevertheless
    loop, compiled/         the events: compiled
    post                    what a world does to gradients and letters
    mail_values             the arithmetic

    recorded                of levels, rings and rounds: what of its trace is kept
"""
