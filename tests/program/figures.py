#!/usr/bin/env python3
"""Judges figures of a JSON report of `wingbeat load`: figures.py FILE 'KEY.KEY < NUMBER'...

Each condition is a path of keys, one of < <= > >= ==, and a number. Exit 1 if one does not hold or a key is missing.
"""
import json
import operator
import sys

OPERATORS = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge, "==": operator.eq}


def main():
    with open(sys.argv[1]) as file:
        report = json.load(file)
    failed = 0
    for condition in sys.argv[2:]:
        path, sign, number = condition.split()
        value = report
        for key in path.split("."):
            if not isinstance(value, dict) or key not in value:
                sys.exit("no key %r in %s; it has %s" % (path, sys.argv[1], ", ".join(sorted(report))))
            value = value[key]
        holds = OPERATORS[sign](value, float(number))
        print("%s: %s = %s" % ("holds " if holds else "FAILED", condition, value))
        failed += not holds
    return 1 if failed else 0


sys.exit(main())
