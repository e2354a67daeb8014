"""The leaderboard: a static site made of runs, published tables and submitted archives.

`sources` reads them, `tables`, `ranks` and `charts` say what is shown of them, `pages` and `build` make files of it.
"""
