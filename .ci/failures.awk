# failures.awk - of the output of go test, verbose or not, what the failed tests printed: of each the first 40 lines and the last 20.
function note(line) { if (test != "") text[test, ++lines[test]] = line }
function fail(name) { if (!(name in failed)) { failed[name] = 1; order[++n] = name } }
/^=== (RUN|CONT|NAME) / { test = $3; next }
/^=== / { next }
/^ *--- FAIL: / { fail($3) }
/^ *--- (FAIL|PASS|SKIP): / { test = $3 }
/^(ok|\?) |^(PASS|FAIL)$|^\t.*\tcoverage:|\[no test files\]/ { test = ""; next }
/^(panic: |fatal error: |SIGQUIT|# |FAIL\t)/ { test = "outside the tests"; fail(test) }
{ note($0) }
END {
  for (i = 1; i <= n; i++) {
    name = order[i]
    printf "\n==== %s\n", name
    for (j = 1; j <= lines[name]; j++) {
      if (j <= 40 || j > lines[name] - 20) print text[name, j]
      else if (j == 41) print "..."
    }
  }
}
