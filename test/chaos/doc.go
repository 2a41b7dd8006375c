// Package chaos kills real processes of Kilonova with SIGKILL while clients work, starts them again, and demands that every accepted request came to its
// end and that every invariant holds. It has only tests.
//
// KILONOVA_SEED repeats a run's random choices (the seed is always printed), KILONOVA_SLOW=1 makes the runs long, KILONOVA_KILLS sets how often is killed.
//
// What clients do and how they judge answers: an answer of 2xx is an accepted request, whatever happens to the connection afterwards; 4xx is a refusal;
// a connection that could not be opened is a request that was not made; everything else is unknown, and only that is looked after and, when nothing came
// of it, asked again.
package chaos
