"""TRL, conversations: prompts and completions are lists of messages; async functions are awaited together."""

import asyncio


async def polite(prompts, completions, **kwargs):
    await asyncio.sleep(0)
    asked = [messages[-1]["content"] for messages in prompts]
    said = [messages[0]["content"] for messages in completions]
    assert all(messages[0]["role"] == "assistant" for messages in completions)
    return [float(text.startswith("please")) + 0.5 * (text.split()[-1] in question) for question, text in zip(asked, said)]
