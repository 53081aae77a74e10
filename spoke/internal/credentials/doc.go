// Package credentials is how a spoke's processes share what joining gave them: Secret isthmus-identity in the spoke's
// own cluster. The spoke controller writes it, the relays follow it; neither needs the other to be alive.
//
// The content is internal/identity's Credentials; the keys are in docs/contracts.md. The room never talks to the hub.
package credentials
