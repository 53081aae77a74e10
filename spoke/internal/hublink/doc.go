// Package hublink is a spoke's tie to its hub: credentials, API client, Lease, and the addresses under which other
// clusters reach this one's routers.
//
// The Keeper enrols with the join token, keeps what it gets in Secret isthmus-identity before anything else, renews leaf
// and token together, and says plainly when the hub no longer knows this spoke. Clients made by it always use the token of
// the moment. Everything retries with back-off until its context ends; stopping removes nothing from the hub.
//
// The room decides nothing about resources and routes: what is exported is export's.
package hublink
