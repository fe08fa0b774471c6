package main

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// negative says where each negative test of specifications section 9 is that
// concerns the CSR API, joining, and the agent: package and test.
var negative = map[int][]string{
	1: {"ca/authn TestJoinTokenInParallel", "ca/statedir TestOneUseMeansOne", "ca/kube TestJoinTokenIsReadAnewAfterAConflict", // one token, many hosts: one wins
		"nodeagent TestJoinKeyIsKept", "cmd/node_agent TestTrouble"},
	2: {"ca/caserver TestNoSessionIsResumed", "nodeagent TestWatchTrustsTheRootsOfNow"},                          // roots of now, on each connection
	5: {"ca/caserver TestLongChainIsRefusedFast", "ca TestWeakKeyIsRefused", "ca TestMalformedRequestIsRefused"}, // endless chains, giant keys
	7: {"ca TestRequestForMoreThanTheCallerIsRefused", "ca/caserver TestWhatIsRefused"},                          // a CSR for more than its caller
	8: {"ca/caserver TestSmallNumbersMeanTheDefaultLife", "ca TestTTLAboveTheMaximumIsRefusedNotClamped", "ca TestTTLCannotOverflow", // lives
		"ca TestSignerNearItsEndRefuses", "cmd/node_agent TestBadFlags", "cmd/node_agent TestTrouble"},
	10: {"ca/kube TestPluggedNamesWhatIsMissing", "ca/statedir TestRootThatIsDamaged", "nodeagent/certdir TestLoadRefuses", "cmd/node_agent TestTrouble"}, // half of a CA, half of a set
	13: {"ca/authn TestReviewAndTokenDisagree", "ca/kube TestMayImpersonate"},                                                                             // a pod made anew by its name
	14: {"ca/kube TestPodsNotYetKnown"},                                                                                                                   // caches not yet filled
	18: {"ca/trust TestNewSignerTakesTheShapesOperatorsHave", "nodeagent TestTwoRootsOfOneName"},                                                          // two roots of one name
	19: {"ca TestLeafIsClampedToItsIssuers", "nodeagent TestEndsInTheSameSecond"},                                                                         // the last second
	20: {"nodeagent TestLaptopSleep", "cmd/node_agent TestTrouble"},                                                                                       // all proofs have expired at once
	21: {"nodeagent/certdir TestFullDisk", "nodeagent/certdir TestFailureAtEachOperation", "nodeagent TestSinkThatFails", "cmd/node_agent TestFullDisk"},
	22: {"cmd/node_agent TestPIDFileRace"},                              // a program restarts between PID file and signal
	24: {"ca/authn TestTokensThatAreRefused", "ca/authn TestOIDCToken"}, // JWTs without what they need, of other algorithms
}

// TestNegativeTestsAreThere: none of them has been renamed or removed unseen.
func TestNegativeTestsAreThere(t *testing.T) {
	if len(negative) != 14 {
		t.Errorf("%d of 14", len(negative))
	}
	function := regexp.MustCompile(`(?m)^func (Test\w+)\(`)
	for number, tests := range negative {
		for _, test := range tests {
			folder, name, _ := strings.Cut(test, " ")
			files, err := filepath.Glob(filepath.Join("..", "..", folder, "*_test.go"))
			if err != nil {
				t.Fatal(err)
			}
			there := slices.ContainsFunc(files, func(file string) bool {
				text, err := os.ReadFile(file)
				return err == nil && slices.ContainsFunc(function.FindAllStringSubmatch(string(text), -1), func(m []string) bool { return m[1] == name })
			})
			if !there {
				t.Errorf("negative test %d: there is no %s", number, test)
			}
		}
	}
}
