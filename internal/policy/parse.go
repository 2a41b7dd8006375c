package policy

import (
	"errors"
	"fmt"
	"strings"
)

// The language, lowest binding first; keywords in any case:
//
//	rule  = "" | or
//	or    = and { "or" and }
//	and   = not { "and" not }
//	not   = "not" not | "(" or ")" | check
//	check = "@" | "!" | kind ":" match
//
// The empty rule and "@" allow everybody, "!" nobody. kind is rule, role, an attribute of the caller, or a quoted text, number or
// boolean; match is text with %(attribute of the target)s.

type expr interface{ isExpr() }

type (
	constant bool
	negation struct{ of expr }
	junction struct {
		and   bool
		parts []expr
	}
	atom struct {
		kind, match string
		literal     bool // kind is a constant, not the name of an attribute
	}
)

func (constant) isExpr() {}
func (negation) isExpr() {}
func (junction) isExpr() {}
func (atom) isExpr()     {}

const maxNesting = 200

type token struct {
	kind byte // '(' ')' 'a'nd 'o'r 'n'ot 'c'heck
	text string
}

// parse reads a rule.
func parse(text string) (expr, error) {
	tokens, err := tokenize(text)
	if err != nil {
		return nil, err
	}
	if len(tokens) == 0 {
		return constant(true), nil
	}
	p := &parser{tokens: tokens}
	e, err := p.or(0)
	if err != nil {
		return nil, err
	}
	if p.pos < len(tokens) {
		return nil, fmt.Errorf("%q is out of place", tokens[p.pos].text)
	}
	return e, nil
}

// tokenize splits at blanks; parentheses that stand at the ends of a word are their own tokens, those of %(name)s are not.
func tokenize(text string) ([]token, error) {
	var out []token
	words, err := split(text)
	if err != nil {
		return nil, err
	}
	for _, w := range words {
		for strings.HasPrefix(w, "(") {
			out, w = append(out, token{'(', "("}), w[1:]
		}
		core, closing := trimClosing(w)
		if core != "" {
			out = append(out, word(core))
		}
		for range closing {
			out = append(out, token{')', ")"})
		}
	}
	return out, nil
}

// split cuts at blanks that are not inside quotes.
func split(text string) ([]string, error) {
	var words []string
	var quote byte
	start := -1
	for i := 0; i < len(text); i++ {
		c := text[i]
		switch {
		case quote != 0:
			if c == quote {
				quote = 0
			}
		case c == '\'' || c == '"':
			quote = c
			if start < 0 {
				start = i
			}
		case c == ' ' || c == '\t' || c == '\n' || c == '\r':
			if start >= 0 {
				words, start = append(words, text[start:i]), -1
			}
		case start < 0:
			start = i
		}
	}
	if quote != 0 {
		return nil, errors.New("a quote is not closed")
	}
	if start >= 0 {
		words = append(words, text[start:])
	}
	return words, nil
}

// trimClosing counts the closing parentheses at the end that close nothing inside the word.
func trimClosing(w string) (string, int) {
	n := 0
	for strings.HasSuffix(w, ")") && strings.Count(w, "(") < strings.Count(w, ")") {
		w, n = w[:len(w)-1], n+1
	}
	return w, n
}

func word(w string) token {
	switch strings.ToLower(w) {
	case "and":
		return token{'a', w}
	case "or":
		return token{'o', w}
	case "not":
		return token{'n', w}
	}
	return token{'c', w}
}

type parser struct {
	tokens []token
	pos    int
}

func (p *parser) next(kind byte) bool {
	if p.pos < len(p.tokens) && p.tokens[p.pos].kind == kind {
		p.pos++
		return true
	}
	return false
}

func (p *parser) or(depth int) (expr, error)  { return p.chain('o', depth) }
func (p *parser) and(depth int) (expr, error) { return p.chain('a', depth) }

// chain reads operands joined by one keyword.
func (p *parser) chain(keyword byte, depth int) (expr, error) {
	if depth > maxNesting {
		return nil, fmt.Errorf("nested deeper than %d levels", maxNesting)
	}
	operand := p.not
	if keyword == 'o' {
		operand = p.and
	}
	first, err := operand(depth)
	if err != nil {
		return nil, err
	}
	parts := []expr{first}
	for p.next(keyword) {
		e, err := operand(depth)
		if err != nil {
			return nil, err
		}
		parts = append(parts, e)
	}
	if len(parts) == 1 {
		return first, nil
	}
	return junction{keyword == 'a', parts}, nil
}

func (p *parser) not(depth int) (expr, error) {
	if depth > maxNesting {
		return nil, fmt.Errorf("nested deeper than %d levels", maxNesting)
	}
	switch {
	case p.next('n'):
		e, err := p.not(depth + 1)
		return negation{e}, err
	case p.next('('):
		e, err := p.or(depth + 1)
		if err != nil {
			return nil, err
		}
		if !p.next(')') {
			return nil, errors.New("a parenthesis is not closed")
		}
		return e, nil
	case p.pos == len(p.tokens):
		return nil, errors.New("it ends where a check is expected")
	case p.tokens[p.pos].kind != 'c':
		return nil, fmt.Errorf("%q stands where a check is expected", p.tokens[p.pos].text)
	}
	p.pos++
	return parseCheck(p.tokens[p.pos-1].text)
}

// parseCheck reads one word.
func parseCheck(w string) (expr, error) {
	switch w {
	case "@":
		return constant(true), nil
	case "!":
		return constant(false), nil
	}
	if q := w[0]; q == '\'' || q == '"' {
		end := strings.IndexByte(w[1:], q)
		if end < 0 || end+2 >= len(w) || w[end+2] != ':' {
			return nil, fmt.Errorf("%s: a check has the form kind:match", w)
		}
		return atom{w[1 : end+1], unquote(w[end+3:]), true}, nil
	}
	kind, match, ok := strings.Cut(w, ":")
	if !ok || kind == "" {
		return nil, fmt.Errorf("%q: a check has the form kind:match", w)
	}
	return atom{kind, unquote(match), isConstant(kind)}, nil
}

func unquote(s string) string {
	if len(s) >= 2 && (s[0] == '\'' || s[0] == '"') && s[len(s)-1] == s[0] {
		return s[1 : len(s)-1]
	}
	return s
}

// isConstant tells whether the left side of a check is a number or boolean.
func isConstant(s string) bool {
	switch s {
	case "True", "False", "None", "true", "false":
		return true
	}
	for _, c := range strings.TrimPrefix(s, "-") {
		if c < '0' || c > '9' {
			return false
		}
	}
	return s != "" && s != "-"
}
