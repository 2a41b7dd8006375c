#!/usr/bin/python3
"""Reads a subunit stream of a Tempest run, writes 'outcome seconds test' lines, prints the counts, and fails on surprises: failures that the list of
known ones does not have, and listed ones that pass."""
import argparse
import sys

import subunit
import testtools


def outcomes(path):
    rows = {}

    def one(test):
        times = [t for t in test["timestamps"] if t]
        seconds = (times[-1] - times[0]).total_seconds() if len(times) > 1 else 0
        name = {"success": "passed", "fail": "failed", "skip": "skipped", "inprogress": "unfinished"}.get(test["status"])
        if name:
            reason = test["details"].get("reason") or test["details"].get("traceback")
            rows[test["id"]] = (name, seconds, reason.as_text().strip() if reason else "")

    result = testtools.StreamToDict(one)
    result.startTestRun()
    with open(path, "rb") as f:
        subunit.ByteStreamToStreamResult(f).run(result)
    result.stopTestRun()
    return rows


def listed(path):
    known = {}
    with open(path) as f:
        for line in f:
            line = line.strip()
            if line and not line.startswith("#"):
                test, _, reason = line.partition(" # ")
                if not reason:
                    sys.exit(f"{path}: {test}: a known failure needs its reason")
                known[test.strip()] = reason.strip()
    return known


def main():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("stream")
    p.add_argument("known")
    p.add_argument("--seconds", type=int, default=0)
    p.add_argument("--out")
    args = p.parse_args()
    rows, known = outcomes(args.stream), listed(args.known)
    if args.out:
        with open(args.out, "w") as f:
            for test in sorted(rows):
                f.write("%s %.1f %s\n" % (rows[test][0], rows[test][1], test))
    count = {k: sum(r[0] == k for r in rows.values()) for k in ("passed", "failed", "skipped", "unfinished")}
    bad = 0
    for test, (outcome, _, text) in sorted(rows.items()):
        base = test.split("[")[0].removeprefix("setUpClass (").rstrip(")")
        if outcome in ("failed", "unfinished") and base not in known:
            bad += 1
            print(f"\n{outcome.upper()} {test}\n{text[-3000:]}")
        elif outcome == "passed" and base in known:
            bad += 1
            print(f"\nPASSES NOW, so it does not belong on the list of known failures: {test}")
    skipped = sorted({f"{r[2].splitlines()[-1] if r[2] else 'no reason given'}" for r in rows.values() if r[0] == "skipped"})
    for reason in skipped:
        print("skipped:", reason)
    print(f"tempest: total {len(rows)} in {args.seconds} s; known failures {sum(1 for t, r in rows.items() if r[0] == 'failed' and t.split('[')[0] in known)}")
    print(f"{count['passed']} passed, {count['failed'] + count['unfinished']} failed, {count['skipped']} skipped")
    if not rows:
        sys.exit("no test was run")
    sys.exit(1 if bad else 0)


main()
