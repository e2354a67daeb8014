"""The leaderboard: a static site made of runs, published tables and submitted archives.

`sources` reads them, `headline`, `ranks` and `charts` compute what is shown, `listings` and `build` write the files.
"""
