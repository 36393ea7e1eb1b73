"""The Autobahn|Testsuite against `/echo`: `python -m tests.autobahn --all`.

environment    a Python 2.7 environment with the suite, made once
cases          which cases a run has, and the suite's specification of it
verdict        what the suite found, and whether that will do
run            a server, the suite, and its report
"""
