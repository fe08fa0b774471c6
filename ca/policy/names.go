package policy

import (
	"fmt"
	"strings"
)

// isLabel tells whether text is a DNS-1123 label.
func isLabel(text string) bool {
	if text == "" || len(text) > 63 || text[0] == '-' || text[len(text)-1] == '-' {
		return false
	}
	for i := range len(text) {
		if c := text[i]; c != '-' && (c < 'a' || c > 'z') && (c < '0' || c > '9') {
			return false
		}
	}
	return true
}

// isSubdomain tells whether text is a DNS-1123 subdomain: the name of an object.
func isSubdomain(text string) bool {
	if len(text) > 253 {
		return false
	}
	for label := range strings.SplitSeq(text, ".") {
		if !isLabel(label) {
			return false
		}
	}
	return true
}

// hostProblem says what is wrong with a host that may be a wildcard; empty when
// nothing is. A wildcard is the whole first label, or leads it before a dash.
func hostProblem(host string) string {
	switch {
	case host == "":
		return "empty domain name not allowed"
	case host == "*":
		return ""
	case len(host) > 255:
		return fmt.Sprintf("domain name %q too long (max 255)", host)
	}
	labels := strings.Split(strings.ToLower(host), ".")
	for i, label := range labels {
		if i == 0 && (label == "*" || isLabel(strings.TrimPrefix(label, "*-"))) {
			continue
		}
		if !isLabel(label) {
			return fmt.Sprintf("domain name %q invalid (label %q invalid)", host, label)
		}
	}
	if top := labels[len(labels)-1]; len(labels) > 1 && strings.Trim(top, "0123456789") == "" && !isAddress(host) {
		return fmt.Sprintf("domain name %q invalid (top level domain %q cannot be all-numeric)", host, top)
	}
	return ""
}

// isAddress tells whether a host is four numbers.
func isAddress(host string) bool {
	return strings.Count(host, ".") == 3 && strings.Trim(host, "0123456789.") == ""
}

func portProblem(field string, number int64) (Problem, bool) {
	if number < 1 || number > 65535 {
		return Problem{Field: field, Message: fmt.Sprintf("port number %d must be in the range 1..65535", number)}, true
	}
	return Problem{}, false
}
