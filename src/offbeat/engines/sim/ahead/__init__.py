"""Runs whose timing is known before any arithmetic: timetables and dependency levels.

`schedule` settles who writes when (`timetable`), `update_form` reads off what a class computes, `levels`
computes level by level as many models at once as there are, of runs that lie side by side.
"""
