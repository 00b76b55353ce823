package nats_test

func runNode(string) int { return 1 }
