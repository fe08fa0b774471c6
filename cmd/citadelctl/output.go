package main

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"sigs.k8s.io/yaml"
)

// apiVersion of all that is written for programs. Fields may be added under it;
// none is renamed, removed or given another meaning.
const apiVersion = "citadel/v1"

// meta is what every document begins with.
type meta struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	// Time is the time by which was judged.
	Time time.Time `json:"time,omitzero"`
}

func newMeta(kind string, now time.Time) meta {
	return meta{APIVersion: apiVersion, Kind: kind, Time: now.UTC().Truncate(time.Second)}
}

var formats = []string{"table", "json", "yaml"}

// output is the flag that chooses the form of data.
type output struct{ format string }

func (o *output) addTo(flags *pflag.FlagSet) {
	flags.StringVarP(&o.format, "output", "o", "table", "`form` of the data: table, json or yaml")
}

// complete teaches the shell the formats. It cannot fail: the flag is there.
func (o *output) complete(cmd *cobra.Command) {
	_ = cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions(formats, cobra.ShellCompDirectiveNoFileComp))
}

func (o *output) validate() error {
	if !slices.Contains(formats, o.format) {
		return fmt.Errorf("--output %q: use table, json or yaml", o.format)
	}
	return nil
}

// write writes a document for programs, or has table write for people.
func (o *output) write(w io.Writer, document any, table func(io.Writer) error) error {
	var text []byte
	var err error
	switch o.format {
	case "json":
		text, err = json.MarshalIndent(document, "", "  ")
		text = append(text, '\n')
	case "yaml":
		text, err = yaml.Marshal(document)
	default:
		return wrapOutput(table(w))
	}
	if err == nil {
		_, err = w.Write(text)
	}
	return wrapOutput(err)
}

func wrapOutput(err error) error {
	if err != nil {
		return fmt.Errorf("write the output: %w", err)
	}
	return nil
}

// printable replaces what could command a terminal or feign a line: names in
// certificates and objects are written by others.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return unicode.ReplacementChar
	}, s)
}
