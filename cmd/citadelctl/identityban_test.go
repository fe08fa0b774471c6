package main

import (
	"strings"
	"testing"
	"time"

	"citadel/ca/kube"
)

// TestBanOfACertificate says that a join token that lives lets the same key in.
func TestBanOfACertificate(t *testing.T) {
	said, err := ban(kube.BanList{}, whom{serial: "1f"}, kube.Ban{Since: time.Now()})
	if err != nil || !strings.Contains(said, "revoke the token too (citadelctl token list, token revoke)") {
		t.Errorf("%s, %v", said, err)
	}
}
