package weigher

import "kilonova/internal/compute/scheduler"

const mostDevices = 100 // hosts with that many free devices are alike

// pci keeps hosts with PCI devices for the servers that need them: a server with devices goes where many are free only if it must, and one
// without goes where there are none.
func pci() scheduler.Weigher {
	return scheduler.Weigher{
		Multiplier: func(c *scheduler.Config) float64 { return c.PCIWeightMultiplier },
		Key:        "pci_weight_multiplier",
		Compile: always(func(h *scheduler.HostState) float64 {
			free := 0
			for _, p := range h.PCI {
				free += p.Count
			}
			return float64(mostDevices - min(free, mostDevices-1))
		}),
	}
}
