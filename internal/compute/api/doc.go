// Package api is the compute REST API: the table of its 265 routes with their microversions, policy rules, schemas and success codes; the
// version documents; and what joins the table with the handlers, which live in the packages servers, cloud, resources and proxy.
//
// The table is data. spec/compute-api.json describes the API; gen makes from it the table (routes.go), the default policy (rules.go), the
// JSON Schema files (schemas/) and openapi.json. Table joins the table with the handlers. A route without a handler answers 501, one that
// compute has given up answers 410 (RDP consoles 400).
package api

//go:generate go run ./gen
