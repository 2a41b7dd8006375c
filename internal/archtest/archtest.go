// Package archtest holds the rules of the house as tests: who may import whom, how large things may grow, what names mean. Each failing rule prints its reason.
package archtest
