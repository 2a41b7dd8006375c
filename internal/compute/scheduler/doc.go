// Package scheduler chooses hosts. It is pure: what it knows of the cloud is handed in as values, and it changes nothing.
//
// The way of a request:
//
//  1. Query turns it into the question that placement answers (allocation candidates); the request filters add to it.
//  2. Planner.Plan takes the hosts that placement named, drops those that a host filter refuses, weighs the rest and ranks them. What it
//     gives is either a ranking or an explanation: which constraint removed how many hosts, which ones, and the nearest miss.
//  3. The caller claims the best host's candidate in placement; when that fails it goes to the next in the ranking, without coming back.
//
// Names and options are those of nova-scheduler: the filters are in package filter, the weighers in package weigher, one file each, and the
// registries are literal maps there. A request for something that no host can be known to give (NUMA placement on hosts that report no
// topology, PCI devices on hosts that report none) is refused with that reason, whichever filters are switched on.
package scheduler
