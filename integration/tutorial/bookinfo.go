package tutorial

import "citadel/integration/tutorial/wire"

const (
	productpage      = "http://productpage.bookinfo:9080/ip"
	productpageOther = "http://productpage.bookinfo:9081/ip"
	details          = "http://details.bookinfo:9080/ip"
	detailsOther     = "http://details.bookinfo:9081/ip"
)

// bookinfo has the article's cases of productpage and reviews. The Policy of the step
// before stays: where there is none at all, the rules of today's API hold.
func bookinfo() []Step {
	return []Step{
		{
			Name: "a policy without a rule",
			Say:  "A Policy for productpage alone: the server wants mutual TLS, and no client was told to speak it.",
			Edits: []Edit{apply(`apiVersion: authentication.istio.io/v1alpha1
kind: Policy
metadata: {name: productpage-tls, namespace: bookinfo}
spec:
  targets: [{name: productpage}]
  peers: [{mtls: {}}]
`)},
			Calls: []Call{refused("sleep.default", productpage, "19")},
		}, {
			Name:  "and with one",
			Say:   "DestinationRule default for *.local: sidecars open mutual TLS to all.",
			Edits: []Edit{apply(everywhere("istio-system"))},
			Calls: []Call{works("sleep.default", productpage, wire.MutualTLS, "20")},
		}, {
			Name: "a policy for a namespace",
			Say:  "Without targets, and named default.",
			Edits: []Edit{apply(`apiVersion: authentication.istio.io/v1alpha1
kind: Policy
metadata: {name: default, namespace: bookinfo}
spec:
  peers: [{mtls: {}}]
`)},
			Calls: []Call{refused("sleep.legacy", details, "21")},
		}, {
			Name: "productpage-2: a rule and a policy for one port",
			Say:  "Of productpage port 9080 alone is for mutual TLS, at both ends.",
			Edits: []Edit{
				remove("policy.authentication.istio.io", "default", "productpage-tls", "-n", "bookinfo"), remove("destinationrule", "default", "-n", "istio-system"),
				apply(`apiVersion: authentication.istio.io/v1alpha1
kind: Policy
metadata: {name: productpage-2, namespace: bookinfo}
spec:
  targets: [{name: productpage, ports: [{number: 9080}]}]
  peers: [{mtls: {}}]
---
apiVersion: networking.istio.io/v1alpha3
kind: DestinationRule
metadata: {name: productpage-2, namespace: bookinfo}
spec:
  host: productpage
  trafficPolicy:
    tls: {mode: DISABLE}
    portLevelSettings:
    - {port: {number: 9080}, tls: {mode: ISTIO_MUTUAL}}
`)},
			Calls: []Call{
				works("sleep.default", productpageOther, wire.Plain, "23"),
				works("sleep.default", productpage, wire.MutualTLS, "22"),
				refused("sleep.legacy", productpage, "22"),
				works("sleep.legacy", productpageOther, wire.Plain, "23"),
			},
		}, {
			Name:  "productpage-2: the rule alone",
			Say:   "A rule secures nothing by itself: it only changes the client.",
			Edits: []Edit{remove("policy.authentication.istio.io", "productpage-2", "-n", "bookinfo")},
			Calls: []Call{refused("sleep.default", productpage, "24"), works("sleep.legacy", productpage, wire.Plain, "24")},
		},
	}
}

// forgotten is the FAQ's case of details, and the step that it forgets.
func forgotten() []Step {
	return []Step{
		{
			Name: "details:9080, as the FAQ has it",
			Say:  "Mutual TLS for all; a Policy without peers takes it off port 9080 of details. The step that the FAQ forgets is the client's.",
			Edits: []Edit{remove("destinationrule", "productpage-2", "-n", "bookinfo"), apply(meshStrict), apply(everywhere("istio-system")), apply(`apiVersion: authentication.istio.io/v1alpha1
kind: Policy
metadata: {name: example, namespace: bookinfo}
spec:
  targets: [{name: details, ports: [{number: 9080}]}]
  peers: []
`)},
			Calls: []Call{refused("sleep.default", details, "31"), works("sleep.legacy", details, wire.Plain, "33"),
				works("sleep.default", detailsOther, wire.MutualTLS, "32"), refused("sleep.legacy", detailsOther, "32")},
		}, {
			Name: "details:9080, mended",
			Say:  "A rule for the port.",
			Edits: []Edit{apply(`apiVersion: networking.istio.io/v1alpha3
kind: DestinationRule
metadata: {name: details, namespace: bookinfo}
spec:
  host: details
  trafficPolicy:
    tls: {mode: ISTIO_MUTUAL}
    portLevelSettings:
    - {port: {number: 9080}, tls: {mode: DISABLE}}
`)},
			Calls: []Call{works("sleep.default", details, wire.Plain, "30"), works("sleep.default", detailsOther, wire.MutualTLS, "32")},
		},
	}
}
