package tutorial

import "citadel/integration/tutorial/wire"

// legacy is Istio 0.3 to 0.7: section 4.1 of the reference.
func legacy() []Step {
	return []Step{
		{
			Name: "mutual TLS for all",
			Say: `The mesh config has authPolicy: MUTUAL_TLS. sleep.default and httpbin.default have sidecars:
they speak mutual TLS, and neither program knows. sleep.legacy has none, and is refused.`,
			Calls: []Call{works("sleep.default", httpbinHere, wire.MutualTLS, "1"), refused("sleep.legacy", httpbinHere, "2")},
		}, {
			Name:  "an annotation turns it off for one port",
			Say:   "auth.istio.io/8000: NONE on Service httpbin. Both get through, in plain text.",
			Edits: []Edit{annotate("default", "httpbin", "auth.istio.io/8000=NONE")},
			Calls: []Call{works("sleep.legacy", httpbinHere, wire.Plain, "3"), works("sleep.default", httpbinHere, wire.Plain, "4")},
		}, {
			Name:  "and back",
			Say:   "Without the annotation it is as before.",
			Edits: []Edit{annotate("default", "httpbin", "auth.istio.io/8000-")},
			Calls: []Call{refused("sleep.legacy", httpbinHere, "2"), works("sleep.default", httpbinHere, wire.MutualTLS, "1")},
		}, {
			Name:  "the mesh off",
			Say:   "authPolicy: NONE. Nothing is restarted.",
			Edits: []Edit{mesh(meshOff)},
			Calls: []Call{works("sleep.legacy", httpbinHere, wire.Plain, "FAQ Q1"), works("sleep.default", httpbinHere, wire.Plain, "FAQ Q1")},
		}, {
			Name:  "an annotation turns it on for one port",
			Say:   "The opposite direction: auth.istio.io/8000: MUTUAL_TLS.",
			Edits: []Edit{annotate("default", "httpbin", "auth.istio.io/8000=MUTUAL_TLS")},
			Calls: []Call{refused("sleep.legacy", httpbinHere, "6"), works("sleep.default", httpbinHere, wire.MutualTLS, "5"),
				works("sleep.default", httpbinTest2, wire.Plain, "")},
		}, {
			Name:  "a server without a sidecar",
			Say:   "Under MUTUAL_TLS the client does not look whether the server has a sidecar: httpbin.legacy cannot be called.",
			Edits: []Edit{annotate("default", "httpbin", "auth.istio.io/8000-"), mesh(installed)},
			Calls: []Call{refused("sleep.default", httpbinLegacy, "7")},
		}, {
			Name:  "an annotation on the server's Service mends it",
			Say:   "auth.istio.io/8000: NONE on httpbin.legacy.",
			Edits: []Edit{annotate("legacy", "httpbin", "auth.istio.io/8000=NONE")},
			Calls: []Call{works("sleep.default", httpbinLegacy, wire.Plain, "8")},
		}, {
			Name: "the API server",
			Say: `It is a service without a sidecar, too. The mesh config has it in mtlsExcludedServices, and so
sleep.default can call it: a list of API versions.`,
			Edits: []Edit{annotate("legacy", "httpbin", "auth.istio.io/8000-")},
			Calls: []Call{{From: "sleep.default", URL: apiServer, Body: "APIVersions", Wire: wire.OwnTLS, Rows: "9"}},
		}, {
			Name:  "the list is cleared",
			Say:   "The sidecar now wraps curl's TLS into its own, which the API server does not speak: exit code 35.",
			Edits: []Edit{mesh(cleared)},
			Calls: []Call{{From: "sleep.default", URL: apiServer, Exit: 35, Rows: "10"},
				{From: "sleep.legacy", URL: apiServer, Body: "APIVersions", Wire: wire.OwnTLS, Rows: "11"}},
		}, {
			Name:  "the list is restored",
			Say:   "It works again.",
			Edits: []Edit{mesh(installed)},
			Calls: []Call{{From: "sleep.default", URL: apiServer, Body: "APIVersions", Wire: wire.OwnTLS, Rows: "9"}},
		}, {
			Name:  "the list is for services outside alone",
			Say:   "A service that has a sidecar does not belong there: its server still wants mutual TLS.",
			Edits: []Edit{mesh(tooMany)},
			Calls: []Call{refused("sleep.default", httpbinHere, "FAQ Q6")},
		}, {
			Name:  "the FAQ's details",
			Say:   "Mutual TLS for all but port 9080 of details, by annotation.",
			Edits: []Edit{mesh(installed), annotate("bookinfo", "details", "auth.istio.io/9080=NONE")},
			Calls: []Call{
				works("sleep.legacy", "http://details.bookinfo:9080/ip", wire.Plain, "29"),
				works("sleep.default", "http://details.bookinfo:9080/ip", wire.Plain, "28"),
				refused("sleep.legacy", "http://details.bookinfo:9081/ip", "28"),
				works("sleep.default", "http://details.bookinfo:9081/ip", wire.MutualTLS, "28"),
			},
		},
	}
}
