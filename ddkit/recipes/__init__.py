"""What was asked, in words and lines: recipes read, checked and resolved; torch is never loaded.

Start with `recipe`; `sections` holds the tables that core understands, `binding` checks everybody's
options by signature, `resolution` fills in what a recipe leaves open, and `place` knows the line on
which a mistake stands.
"""
