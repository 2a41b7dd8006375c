// Package store keeps compute's nouns in the SQL database: one file per noun. Reads take a db.Querier (the database or a running transaction); writes take a
// *db.Tx, so that a handler or a flow can commit an object, its quota use and its operation together.
//
// Quota use is counted in rows that are changed in the same transaction as the servers they count, so the counters equal a recount at every commit.
// A server's task state is not stored: every read joins the open operation that holds the server (table operations, column holds).
package store
