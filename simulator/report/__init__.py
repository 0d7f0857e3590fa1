"""Results for people: tables in the terminal, and a page that needs nothing but a browser, with its plots as files.

A module of this folder describes the tables of one kind of result and says in which order the terminal shows them; the
module and the template of the same name in `pages/` make its page of the same descriptions, that in `plots/` its plots.
"""
