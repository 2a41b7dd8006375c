// Package view makes the documents of the compute API from compute's nouns. It is pure. What a document holds at a microversion is data: each document
// is a table of fields with the range in which each is there. Server documents, which lists carry by the thousand, are appended by hand.
package view
