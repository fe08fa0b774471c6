package main

import (
	"bytes"
	"encoding/pem"

	"golang.org/x/crypto/x509roots/fallback/bundle"
)

// rootsPEM are the public CAs that Mozilla trusts, as a Go module has them: its
// version stands in go.mod, while the file of the same name differs from one
// build machine to the next. Roots that are trusted under conditions alone are
// left out, because a file of certificates cannot say so.
func rootsPEM() []byte {
	var out bytes.Buffer
	for root := range bundle.Roots() {
		if root.Constraint == nil {
			out.Write(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: root.Certificate}))
		}
	}
	return out.Bytes()
}
