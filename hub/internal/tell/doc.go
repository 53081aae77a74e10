// Package tell is what the controllers that tell users of builds have in common: how a status is written, when to look at
// which object again, and how much of a message an Event takes. It knows neither the model nor what is told.
package tell
