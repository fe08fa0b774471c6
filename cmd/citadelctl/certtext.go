package main

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"citadel/cmd/citadelctl/inspect"
)

// writeInspection writes the report for people: each certificate, then what
// holds for all, and the verdict last, where it is read.
func writeInspection(w io.Writer, now time.Time, r inspect.Report) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, c := range r.Certificates {
		writeCertificate(t, now, c, len(r.Certificates))
		fmt.Fprintln(t)
	}
	if r.Key != nil {
		field(t, "Private key", keyText(r))
	}
	if r.Verification != nil {
		field(t, "Verified", verifiedText(now, *r.Verification))
	}
	if r.Key != nil || r.Verification != nil {
		fmt.Fprintln(t)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	writeFindings(w, "Remarks", r.Remarks)
	_, err := fmt.Fprintln(w, printable(verdict(r)))
	writeFindings(w, "", r.Problems)
	return err
}

func verdict(r inspect.Report) string {
	switch {
	case !r.Right:
		return fmt.Sprintf("Wrong: %s with %s:", count(len(r.Problems), "problem"), r.Source)
	case r.Verification != nil && !r.Verification.Verified:
		return fmt.Sprintf("Right as far as it goes: nothing is wrong with %s, but it was not verified.", r.Source)
	}
	return fmt.Sprintf("Right: nothing is wrong with %s.", r.Source)
}

func writeCertificate(t io.Writer, now time.Time, c inspect.Certificate, of int) {
	fmt.Fprintf(t, "Certificate %d of %d, %s, from %s\n", c.Number, of, roleText(c.Role), printable(c.From))
	if c.SPIFFEID != "" {
		field(t, "  SPIFFE ID", c.SPIFFEID)
	} else {
		field(t, "  SPIFFE ID", "none")
		list(t, "  URIs", c.URIs)
	}
	list(t, "  DNS names", c.DNSNames)
	list(t, "  IP addresses", c.IPAddresses)
	list(t, "  E-mail", c.EmailAddresses)
	field(t, "  Subject", orEmpty(c.Subject))
	field(t, "  Issuer", orEmpty(c.Issuer))
	field(t, "  Serial", c.Serial)
	field(t, "  Key", c.KeyType)
	field(t, "  Signature", c.Signature)
	field(t, "  Not before", moment(c.NotBefore)+" ("+when(now, c.NotBefore)+")")
	field(t, "  Not after", moment(c.NotAfter)+" ("+expiry(now, c.NotAfter)+")")
	field(t, "  CA", caText(c))
	field(t, "  Key usage", keyUsageText(c))
	field(t, "  Extended usage", orNone(strings.Join(c.ExtKeyUsages, ", ")))
	field(t, "  Subject key ID", orNone(c.SubjectKeyID))
	field(t, "  Authority key ID", orNone(c.AuthorityKeyID))
	field(t, "  SHA-256", c.SHA256)
}

func field(t io.Writer, name, value string) {
	fmt.Fprintf(t, "%s:\t%s\n", name, printable(value))
}

// list leaves out an empty one.
func list(t io.Writer, name string, values []string) {
	if len(values) > 0 {
		field(t, name, strings.Join(values, ", "))
	}
}

func orNone(s string) string {
	if s == "" {
		return "none"
	}
	return s
}

func orEmpty(s string) string {
	if s == "" {
		return "(empty)"
	}
	return s
}

func roleText(r inspect.Role) string {
	switch r {
	case inspect.Issuer:
		return "signing certificate"
	case inspect.Root:
		return "root"
	}
	return "workload"
}

func caText(c inspect.Certificate) string {
	switch {
	case !c.CA:
		return "no"
	case c.MaxPathLength != nil:
		return fmt.Sprintf("yes, with at most %d below it", *c.MaxPathLength)
	}
	return "yes"
}

func keyUsageText(c inspect.Certificate) string {
	text := orNone(strings.Join(c.KeyUsages, ", "))
	if c.KeyUsageCritical {
		text += " (critical)"
	}
	return text
}

func keyText(r inspect.Report) string {
	whose := "is NOT the key of the certificate"
	if r.Key.Matches {
		whose = "is the key of the certificate"
	}
	return fmt.Sprintf("%s, %s (from %s)", r.Key.KeyType, whose, r.Key.From)
}

func verifiedText(now time.Time, v inspect.Verification) string {
	switch {
	case v.Verified:
		return fmt.Sprintf("yes, by the roots of %s; the path ends %s", v.Roots, when(now, v.End))
	case v.Roots == "":
		return "no: there are no roots to verify by"
	}
	return fmt.Sprintf("NO, not by the roots of %s", v.Roots)
}

// writeFindings leaves errors to the line that follows or precedes it.
func writeFindings(w io.Writer, title string, findings []inspect.Finding) {
	if len(findings) > 0 && title != "" {
		fmt.Fprintf(w, "%s:\n", title)
	}
	for _, f := range findings {
		text := f.Message
		if f.Certificate > 0 {
			text = fmt.Sprintf("certificate %d: %s", f.Certificate, text)
		}
		fmt.Fprintf(w, "  - %s\n", printable(text))
	}
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

func moment(t time.Time) string { return t.Format(time.RFC3339) }

// when says how far off a time is.
func when(now, t time.Time) string {
	if d := t.Sub(now); d >= 0 {
		return "in " + inspect.Span(d)
	}
	return inspect.Span(now.Sub(t)) + " ago"
}

// expiry is when for the end of a certificate.
func expiry(now, end time.Time) string {
	if now.After(end) {
		return "expired " + when(now, end)
	}
	return when(now, end)
}
