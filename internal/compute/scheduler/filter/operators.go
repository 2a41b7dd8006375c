package filter

import (
	"strconv"
	"strings"
)

// matches judges a value of a host by the requirement of an extra spec:
//
//	=  >= <= == !=          numbers (= means at least)
//	s== s!= s< s<= s> s>=   texts
//	<in> x                  x is part of the value
//	<all-in> x y            all are parts
//	<or> x <or> y           one is equal
//
// Only the first word after an operator counts, except where several are shown. Without an operator the texts must be equal.
func matches(value, requirement string) bool {
	words := strings.Fields(requirement)
	if len(words) == 0 {
		return value == requirement
	}
	arg := ""
	if len(words) > 1 {
		arg = words[1]
	} else {
		return !isOperator(words[0]) && value == requirement
	}
	switch words[0] {
	case "=", ">=":
		return numbers(value, arg, func(a, b float64) bool { return a >= b })
	case "<=":
		return numbers(value, arg, func(a, b float64) bool { return a <= b })
	case "==":
		return numbers(value, arg, func(a, b float64) bool { return a == b })
	case "!=":
		return numbers(value, arg, func(a, b float64) bool { return a != b })
	case "s==":
		return value == arg
	case "s!=":
		return value != arg
	case "s<":
		return value < arg
	case "s<=":
		return value <= arg
	case "s>":
		return value > arg
	case "s>=":
		return value >= arg
	case "<in>":
		return strings.Contains(value, arg)
	case "<all-in>":
		for _, w := range words[1:] {
			if !strings.Contains(value, w) {
				return false
			}
		}
		return true
	case "<or>":
		for i := 1; i < len(words); i += 2 {
			if value == words[i] {
				return true
			}
		}
		return false
	}
	return value == requirement
}

func isOperator(s string) bool {
	switch s {
	case "=", ">=", "<=", "==", "!=", "s==", "s!=", "s<", "s<=", "s>", "s>=", "<in>", "<all-in>", "<or>":
		return true
	}
	return false
}

func numbers(a, b string, compare func(a, b float64) bool) bool {
	x, e1 := strconv.ParseFloat(strings.TrimSpace(a), 64)
	y, e2 := strconv.ParseFloat(strings.TrimSpace(b), 64)
	return e1 == nil && e2 == nil && compare(x, y)
}
