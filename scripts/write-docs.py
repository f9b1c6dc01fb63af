#!/usr/bin/env python
"""Writes the parts of docs/*.md that are facts of the code: field tables, hooks, commands, modules, messages.

In: pages with `<!-- generated: WORDS -->` … `<!-- end -->`. Out: the same pages with what stands between the two
renewed. `--check` writes nothing and exits 1 where a page is out of date; tests/test_docs.py asks the same.
"""

import sys

from docs_from_code.pages import main

if __name__ == "__main__":
    sys.exit(main())
