#!/usr/bin/python3
"""Reads a subunit stream of a Tempest run, writes 'outcome seconds test' lines, prints the counts, and fails on surprises:

* a test that failed and that the list of known failures does not have, or has and that passes;
* a test that was skipped and that the list of skips does not have, or has and that was not skipped although the selection names it."""
import argparse
import re
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
            text = reason.as_text().strip() if reason else ""
            log = test["details"].get("pythonlogging:''")  # what Tempest asked and was answered
            if log and name in ("failed", "unfinished"):
                text = "\n".join([line[:400] for line in log.as_text().splitlines() if "Request (" in line][-15:] + [text])
            rows[test["id"]] = (name, seconds, text)

    result = testtools.StreamToDict(one)
    result.startTestRun()
    with open(path, "rb") as f:
        subunit.ByteStreamToStreamResult(f).run(result)
    result.stopTestRun()
    return rows


TOLD = 5  # surprises that are told once more at the end: what is shown of a continuous integration's log is its end
IDS = re.compile(r"req-[0-9a-f-]{36}|\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b")


def essence(text):
    """The last requests of the test, and the end of its traceback, where the assertion is."""
    lines = [line for line in text.splitlines() if line.strip()]
    log = [line for line in lines if "Request (" in line]
    trace = [line for line in lines if "Request (" not in line]
    return "\n".join(line[:400] for line in log[-3:] + trace[-8:])


def warnings(path, names):
    """The last warnings and errors in a log: first those with one of the names, then any."""
    with open(path, errors="replace") as f:
        lines = [line.rstrip()[:500] for line in f if "level=WARN" in line or "level=ERROR" in line]
    of = [line for line in lines if any(n in line for n in set(names))][-10:]
    return of + [line for line in lines[-8:] if line not in of]


def base(test):
    """The plain name of a test, or of a class that was skipped or failed as a whole."""
    return test.split("[")[0].removeprefix("setUpClass (").removeprefix("tearDownClass (").rstrip(")")


def known_failures(path):
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


def known_skips(path):
    """Reads 'reason: TEXT' lines, each followed by the tests and classes that it holds for."""
    known, reason = {}, None
    with open(path) as f:
        for line in f:
            line = line.strip()
            if line.startswith("reason:"):
                reason = line.removeprefix("reason:").strip()
            elif line and not line.startswith("#"):
                if not reason:
                    sys.exit(f"{path}: {line}: a skip needs its reason")
                if line in known:
                    sys.exit(f"{path}: {line}: listed twice")
                known[line] = reason
    return known


def main():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("stream")
    p.add_argument("known")
    p.add_argument("--skips", required=True, help="list of skips")
    p.add_argument("--selection", required=True, help="file of the expressions that were run")
    p.add_argument("--seconds", type=int, default=0)
    p.add_argument("--out")
    p.add_argument("--log", help="log of the cloud, of which surprises are told what it warns of")
    args = p.parse_args()
    rows, failures, skips = outcomes(args.stream), known_failures(args.known), known_skips(args.skips)
    with open(args.selection) as f:
        selected = [re.compile(line.strip()) for line in f if line.strip()]
    if args.out:
        with open(args.out, "w") as f:
            for test in sorted(rows):
                f.write("%s %.1f %s\n" % (rows[test][0], rows[test][1], test))
    count = {k: sum(r[0] == k for r in rows.values()) for k in ("passed", "failed", "skipped", "unfinished")}
    bad, reasons, seen = [], {}, {base(t): r[0] for t, r in rows.items()}

    def surprise(text, what=None):
        bad.append(what or text)
        print("\n" + text)

    for test, (outcome, _, text) in sorted(rows.items()):
        name = base(test)
        if outcome in ("failed", "unfinished") and name not in failures:
            surprise(f"{outcome.upper()} {test}\n{text[-6000:]}", f"{outcome.upper()} {test}\n{essence(text)}")
        elif outcome == "passed" and name in failures:
            surprise(f"PASSES NOW, so it does not belong on the list of known failures: {test}")
        elif outcome == "skipped" and name not in skips:
            surprise(f"SKIPPED, and the list of skips does not have it: {test}\n{text.splitlines()[-1] if text else 'no reason given'}")
        elif outcome == "skipped":
            reasons.setdefault(skips[name], []).append(name)
    for name in skips:
        # A test that the selection does not reach (smoke tests have their mark behind the name) says nothing.
        if name in seen and seen[name] != "skipped" or name not in seen and any(s.search(name) for s in selected):
            surprise(f"NOT SKIPPED, so it does not belong on the list of skips: {name} ({seen.get(name, 'not run')})")
    for reason, names in sorted(reasons.items()):
        print(f"skipped {len(names)}: {reason}")
    print(f"tempest: total {len(rows)} in {args.seconds} s; known failures {sum(1 for t, r in rows.items() if r[0] == 'failed' and base(t) in failures)}")
    print(f"{count['passed']} passed, {count['failed'] + count['unfinished']} failed, {count['skipped']} skipped")
    if not rows:
        sys.exit("no test was run")
    if bad:
        told = bad[:TOLD]
        print(f"\n######## {len(bad)} surprises; {len(told)} of them in short, and what the cloud warned of (more is above)")
        print("\n".join(told))
        if args.log:
            print("\n".join(warnings(args.log, IDS.findall("\n".join(told)))))
    sys.exit(1 if bad else 0)


main()
