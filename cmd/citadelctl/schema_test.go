package main

import (
	"flag"
	"fmt"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"citadel/cmd/citadelctl/inspect"
	"citadel/cmd/internal/daemon"
)

var update = flag.Bool("update", false, "write testdata/schema.txt anew")

// TestSchema: what programs read does not change by accident. A field may be
// added under an apiVersion; none may go.
func TestSchema(t *testing.T) {
	var out strings.Builder
	for _, d := range []struct {
		kinds    string
		document any
	}{
		{"BanList", banDocument{}},
		{"CertificateInspection", struct {
			meta
			inspect.Report
		}{}},
		{"Check", checkDocument{}},
		{"JoinToken", createdToken{}},
		{"JoinTokenList", tokenDocument{}},
		{"PolicyDiff", diffDocument{}},
		{"PolicyExplanation", explanationDocument{}},
		{"PolicyMatrix", matrixDocument{}},
		{"PolicyTest", testDocument{}},
		{"PolicyValidation", validationDocument{}},
		{"Status", statusDocument{}},
		{"Version", struct {
			meta
			daemon.Version
		}{}},
		{"WorkloadSecretList, WorkloadSecretVerification", secretDocument{}},
	} {
		fmt.Fprintf(&out, "%s %s\n", apiVersion, d.kinds)
		writeSchema(&out, "  ", reflect.TypeOf(d.document))
	}
	const golden = "testdata/schema.txt"
	if *update {
		if err := os.WriteFile(golden, []byte(out.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if out.String() != string(want) {
		t.Errorf("schema is\n%s\nwant (go test -update after a look)\n%s", out.String(), want)
	}
}

func writeSchema(out *strings.Builder, indent string, of reflect.Type) {
	for n := range of.NumField() {
		field := of.Field(n)
		if field.Anonymous {
			writeSchema(out, indent, field.Type)
			continue
		}
		name, option, _ := strings.Cut(field.Tag.Get("json"), ",")
		kind, list, of := field.Type, "", ""
		for kind.Kind() == reflect.Slice || kind.Kind() == reflect.Pointer {
			if kind.Kind() == reflect.Slice {
				list, of = "[]", " []"
			}
			kind = kind.Elem()
		}
		if option != "" {
			option = " optional"
		}
		isStruct := kind.Kind() == reflect.Struct && kind != reflect.TypeFor[time.Time]()
		switch {
		case isStruct:
			fmt.Fprintf(out, "%s\n", indent+name+of+option)
			writeSchema(out, indent+"  ", kind)
		default:
			fmt.Fprintf(out, "%s%s %s%s%s\n", indent, name, list, kind, option)
		}
	}
}
