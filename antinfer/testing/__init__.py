"""What users and our own tests share: conformance checks, fault plans, the simulator."""
