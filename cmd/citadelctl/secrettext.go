package main

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"citadel/cmd/citadelctl/inspect"
	"citadel/cmd/citadelctl/survey"
)

// secretDocument is the form for programs.
type secretDocument struct {
	meta
	survey.Report
}

// writeSecrets writes a row for each Secret, and nothing where there is none.
func writeSecrets(w io.Writer, now time.Time, items []survey.Item) error {
	if len(items) == 0 {
		return nil
	}
	t := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	fmt.Fprintln(t, "NAMESPACE\tNAME\tSPIFFE ID\tEXPIRES IN\tNEXT ROTATION\tVERIFIED")
	for _, item := range items {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\n", item.Namespace, item.Name, printable(idText(item)),
			expiresText(now, item), rotationText(now, item), printable(verdictText(item)))
	}
	return t.Flush()
}

func idText(item survey.Item) string {
	if item.Certificate == nil || item.Certificate.SPIFFEID == "" {
		return "-"
	}
	return item.Certificate.SPIFFEID
}

func expiresText(now time.Time, item survey.Item) string {
	switch {
	case item.ExpiresAt.IsZero():
		return "-"
	case now.After(item.ExpiresAt):
		return "expired " + when(now, item.ExpiresAt)
	}
	return inspect.Span(item.ExpiresAt.Sub(now))
}

func rotationText(now time.Time, item survey.Item) string {
	switch fate := item.Fate(); {
	case fate == survey.Ignored:
		return "never"
	case fate == survey.Replaced:
		return "soon"
	case now.After(item.NextRotation):
		return "due " + when(now, item.NextRotation)
	}
	return when(now, item.NextRotation)
}

func verdictText(item survey.Item) string {
	if item.Right {
		return "yes"
	}
	var words []string
	for _, p := range item.Problems {
		words = append(words, p.Message)
	}
	return strings.Join(words, "; ")
}
